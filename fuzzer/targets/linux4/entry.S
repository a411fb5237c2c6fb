# The entry code of the target `linux4`: x86-64 Linux around 4.x as its documents describe it, written for this project.
#
# What it follows: Documentation/x86/entry_64.txt (the cheap and the expensive GS test, what paranoid=1 changes) and
# linux-insides, Interrupts part 3 (the idtentry macro, the frame, sync_regs). Where the documents are silent, the shortest
# code that keeps the promise was chosen; so addresses and instruction counts are this image's own.
#
# Two simplifications on purpose. No CLAC at the entries: a profile without SMAP raises #UD on it. No repair of a bad IRETQ in
# error_entry: a kernel-space entry is taken to have the kernel's GS.
#
# constants.inc is written by assemble.py from layout.py and image.py: selectors, PT_* (pt_regs), PERCPU_*, HANDLER_*, LOG_*, CONTROL_*.

        .include "constants.inc"
        .include "calling.inc"

        .text

# ---- Exceptions ------------------------------------------------------------------------------------------------------------------

# One exception entry. has_error_code says whether the processor pushed one, paranoid=1 asks for the RDMSR test of GS (entries that
# can hit between the kernel's first instruction and its SWAPGS), shift_ist is the IST slot to move so that the same exception inside
# the handler does not overwrite this frame.
        .macro idtentry sym do_sym has_error_code paranoid=0 shift_ist=-1
        entry_point \sym
        .if \has_error_code == 0
        pushq   $-1                             # no system call to restart, and the frame has one shape
        .endif
        subq    $PT_orig_rax, %rsp
        .if \paranoid
        testb   $3, PT_cs(%rsp)
        jnz     .Lfrom_user_\sym
        call    paranoid_entry
        .else
        call    error_entry
        .endif
        handler_arguments \has_error_code
        .if \shift_ist != -1
        subq    $EXCEPTION_STKSZ, %gs:PERCPU_cpu_tss + TSS_IST + 8 * (\shift_ist - 1)
        .endif
        call    \do_sym
        .if \shift_ist != -1
        addq    $EXCEPTION_STKSZ, %gs:PERCPU_cpu_tss + TSS_IST + 8 * (\shift_ist - 1)
        .endif
        .if \paranoid
        jmp     paranoid_exit
.Lfrom_user_\sym:                               # a user's exception may sleep: leave the IST stack for the thread's
        call    error_entry
        movq    %rsp, %rdi
        call    sync_regs
        movq    %rax, %rsp
        handler_arguments \has_error_code
        call    \do_sym
        .endif
        jmp     error_exit
        .endm

idtentry divide_error        do_divide_error        has_error_code=0
idtentry debug               do_debug               has_error_code=0 paranoid=1 shift_ist=IST_DEBUG
idtentry int3                do_int3                has_error_code=0 paranoid=1 shift_ist=IST_DEBUG
idtentry invalid_op          do_invalid_op          has_error_code=0
idtentry double_fault        do_double_fault        has_error_code=1 paranoid=1
idtentry invalid_TSS         do_invalid_TSS         has_error_code=1
idtentry segment_not_present do_segment_not_present has_error_code=1
idtentry stack_segment       do_stack_segment       has_error_code=1
idtentry general_protection  do_general_protection  has_error_code=1
idtentry page_fault          do_page_fault          has_error_code=1
idtentry alignment_check     do_alignment_check     has_error_code=1

# Saves the registers into the frame its caller allocated; from user space also takes the kernel's GS.
        routine error_entry
        cld
        save_registers above=8
        testb   $3, 8+PT_cs(%rsp)               # the cheap test: these entries never hit between entry and SWAPGS
        jz      .Lerror_entry_done
        swapgs
.Lerror_entry_done:
        ret

        routine error_exit
        cli                                     # an interrupt after the SWAPGS would find user GS and a kernel CS
        testb   $3, PT_cs(%rsp)
        jz      .Lerror_exit_restore
        swapgs
.Lerror_exit_restore:
        restore_registers_and_return

# Like error_entry, but asks the processor for GS: a kernel base is negative, a user's is not. ebx tells paranoid_exit:
# 0: GS was swapped, swap it back; 1: it was the kernel's already.
        routine paranoid_entry
        cld
        save_registers above=8
        movl    $MSR_GS_BASE, %ecx
        rdmsr
        movl    %edx, %ebx
        shrl    $31, %ebx
        jnz     .Lparanoid_entry_done
        swapgs
.Lparanoid_entry_done:
        ret

# Never reschedules: the interrupted code may be anywhere.
        routine paranoid_exit
        cli
        testl   %ebx, %ebx
        jnz     .Lparanoid_exit_restore
        swapgs
.Lparanoid_exit_restore:
        restore_registers_and_return

# Copies the frame at rdi to the top of the thread stack and returns its new address in rax. Needs the kernel's GS.
        routine sync_regs
        movq    %gs:PERCPU_cpu_current_top_of_stack, %rax
        subq    $PT_SIZE, %rax
        movq    %rdi, %rsi
        movq    %rax, %rdi
        movl    $PT_WORDS, %ecx
        rep movsq
        ret

# ---- NMI -------------------------------------------------------------------------------------------------------------------------

# The simple form: an NMI inside an NMI is left to the processor's latch. From user the frame moves to the thread stack, so that the
# IST stack is free at once; from the kernel everything stays here and GS is asked for, as an NMI can hit anywhere.
        entry_point nmi
        testb   $3, HARDWARE_CS(%rsp)
        jnz     .Lnmi_from_user
        pushq   $-1
        subq    $PT_orig_rax, %rsp
        call    paranoid_entry
        handler_arguments has_error_code=0
        call    do_nmi
        jmp     paranoid_exit
.Lnmi_from_user:
        swapgs
        cld
        pushq   %rdx                            # rdx keeps the way to the hardware frame while rsp moves
        leaq    8(%rsp), %rdx
        movq    %gs:PERCPU_cpu_current_top_of_stack, %rsp
        pushq   HARDWARE_SS(%rdx)
        pushq   HARDWARE_RSP(%rdx)
        pushq   HARDWARE_RFLAGS(%rdx)
        pushq   HARDWARE_CS(%rdx)
        pushq   (%rdx)
        pushq   $-1
        movq    -8(%rdx), %rdx
        push_registers
        handler_arguments has_error_code=0
        call    do_nmi
        swapgs
        restore_registers_and_return

# ---- External interrupts ---------------------------------------------------------------------------------------------------------

# orig_rax is ~vector: negative, so never taken for a system call number.
        .irp    vector, 20,21,22,23,24,25,26,27,28,29,2a,2b,2c,2d,2e,2f
        entry_point interrupt_0x\vector
        pushq   $~0x\vector
        jmp     common_interrupt
        .endr

        routine common_interrupt
        cld
        testb   $3, 8+HARDWARE_CS(%rsp)
        jz      .Linterrupt_has_kernel_gs
        swapgs
.Linterrupt_has_kernel_gs:
        push_registers
        handler_arguments has_error_code=0
        incl    %gs:PERCPU_irq_count            # -1 outside interrupts: only the outermost one changes the stack
        cmovzq  %gs:PERCPU_irq_stack_ptr, %rsp
        pushq   %rdi                            # the link back, also for whoever walks the stack
        call    do_IRQ
        cli
        decl    %gs:PERCPU_irq_count
        popq    %rsp
        testb   $3, PT_cs(%rsp)
        jz      .Linterrupt_restore
        swapgs
.Linterrupt_restore:
        restore_registers_and_return

# ---- System call -----------------------------------------------------------------------------------------------------------------

# SYSCALL changes neither rsp nor GS: until the stack is loaded, this runs on the user's stack with CPL 0. Interrupts stay off
# (IA32_FMASK clears IF), so the return needs no CLI. It is always the slow one, IRETQ: it restores rcx and r11 as well.
        entry_point system_call
        swapgs
        movq    %rsp, %gs:PERCPU_rsp_scratch
        movq    %gs:PERCPU_cpu_current_top_of_stack, %rsp
        .global system_call_on_kernel_stack
system_call_on_kernel_stack:
        pushq   $USER_DS
        pushq   %gs:PERCPU_rsp_scratch
        pushq   %r11
        pushq   $USER_CS
        pushq   %rcx
        pushq   %rax
        push_registers
        handler_arguments has_error_code=0
        call    do_syscall_64
        swapgs
        restore_registers_and_return

        .include "handlers.inc"
        .include "interrupted.inc"
