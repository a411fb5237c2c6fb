# The entry code of the target `linux4`: x86-64 Linux around 4.x as its documents describe it, written for this project.
#
# What it follows: Documentation/x86/entry_64.txt (the ways in, the cheap and the expensive GS test, what paranoid=1 changes),
# linux-insides, Interrupts part 3 (the idtentry macro, the frame, sync_regs), and what is publicly described of later 4.x and 5.x: the
# nested-NMI protocol, page-table isolation with its trampoline stack (4.15), the paranoid entry with RDGSBASE (5.9). Where they are
# silent, the shortest code that keeps the promise was chosen; so addresses and instruction counts are this image's own.
#
# One image serves every profile: what a feature changes is an alternative (alternatives.inc) that the profile writes over it.
#
# constants.inc is written by assemble.py from layout.py and image.py: selectors, PT_* (pt_regs), PERCPU_*, HANDLER_*, LOG_*, CONTROL_*.

        .include "constants.inc"
        .include "alternatives.inc"
        .include "calling.inc"

        .text
        .include "exceptions.inc"
        .include "returns.inc"
        .include "nmi.inc"
        .include "interrupts.inc"
        .include "syscalls.inc"
        .include "compat.inc"

# What user mode's page tables map ends here: what follows needs the kernel's.
        .balign 16, 0xcc
        .global entry_text_end
entry_text_end:
        .org    ENTRY_TEXT_SIZE, 0xcc

        .include "handlers.inc"
        .include "interrupted.inc"
