"""What Linux's entry code promises, as far as any kernel's entry code promises it."""
