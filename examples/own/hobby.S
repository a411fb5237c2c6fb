# The entry code of a small hobby kernel: a system call, a timer interrupt, a page fault, and an NMI.
#
# It has a mistake that no test of its paths shows: docs/bring-your-own-entry-code.md finds it.

        .set    USER_CS, 0x33
        .set    USER_DS, 0x2b

# struct cpu, which GS points to in the kernel.
        .set    CPU_USER_RSP, 0
        .set    CPU_STACK, 8

# struct regs: what the C handlers get. The processor pushes rip, cs, rflags, rsp and ss above it, and we or it an error code.
        .set    REGS_ERROR, 120
        .set    REGS_CS, 136

        .macro  push_registers
        pushq   %rax
        pushq   %rbx
        pushq   %rcx
        pushq   %rdx
        pushq   %rsi
        pushq   %rdi
        pushq   %rbp
        pushq   %r8
        pushq   %r9
        pushq   %r10
        pushq   %r11
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        .endm

        .macro  pop_registers
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %r11
        popq    %r10
        popq    %r9
        popq    %r8
        popq    %rbp
        popq    %rdi
        popq    %rsi
        popq    %rdx
        popq    %rcx
        popq    %rbx
        popq    %rax
        .endm

# An entry through the IDT: an error code lies on the stack. User code has the user's GS, so the kernel's is taken, and given back.
        .macro  enter_and_call handler
        cld
        push_registers
        testb   $3, REGS_CS(%rsp)
        jz      1f
        swapgs
1:      movq    %rsp, %rdi
        movq    REGS_ERROR(%rsp), %rsi
        call    \handler
        cli
        testb   $3, REGS_CS(%rsp)
        jz      2f
        swapgs
2:      pop_registers
        addq    $8, %rsp                        # the error code
        iretq
        .endm

        .macro  entry name
        .balign 16
        .global \name
        .type   \name, @function
\name:
        .endm

        .text

        entry   page_fault
        enter_and_call do_page_fault

        entry   timer
        pushq   $0
        enter_and_call do_timer

# Has a stack of its own (IST), as it can hit anywhere.
        entry   nmi
        pushq   $0
        enter_and_call do_nmi

# SYSCALL leaves RSP and GS the user's, RIP in RCX and RFLAGS in R11; interrupts are off until SYSRET.
        entry   syscall_entry
        swapgs
        movq    %rsp, %gs:CPU_USER_RSP
        movq    %gs:CPU_STACK, %rsp
        pushq   $USER_DS
        pushq   %gs:CPU_USER_RSP
        pushq   %r11
        pushq   $USER_CS
        pushq   %rcx
        pushq   %rax                            # the number of the system call, in the place of an error code
        push_registers
        movq    %rsp, %rdi
        xorl    %esi, %esi
        call    do_syscall
        pop_registers
        addq    $8, %rsp
        movq    24(%rsp), %rsp
        swapgs
        sysretq

# Written in assembly too: counts, and tells the interrupt controller that it was heard.
        entry   do_timer
        incq    ticks(%rip)
        incq    %gs:CPU_TICKS
        ret
        .size   do_timer, . - do_timer

# Kernel code that events arrive in: what the scheduler does when there is nothing to do.
        entry   idle
        sti
        movq    ticks(%rip), %rax
        nop
        cli
        ret
        .size   idle, . - idle

        .data
        .balign 8
        .global cpu0, ticks
cpu0:   .quad   0                               # CPU_USER_RSP
        .quad   0                               # CPU_STACK: the kernel writes it at start-up; here the manifest does
        .quad   0
        .set    CPU_TICKS, 16
ticks:  .quad   0
