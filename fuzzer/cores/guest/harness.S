# The harness of native cores: it lives in system management mode, where nothing of the case can reach it and nothing of it can be
# seen by the case. Each SMI takes the observation of a run that has ended, or that was stopped; RSM begins the next.
#
# Registers that RSM restores come from the save area, which the host fills; the handler loads the others. See mailbox.py for the
# layout of what host and guest exchange.

        .include "constants.inc"

# The save area of SMM, seen from SMBASE.
        .set SAVE, SMBASE + 0xFC00
        .set SAVE_BYTES, 0x400
        .set SAVE_EFER, SAVE + 0x2D0
        .set SAVE_CR3, SAVE + 0x350
        .set SAVE_DR7, SAVE + 0x360
        .set SAVE_RFLAGS, SAVE + 0x370
        .set SAVE_RIP, SAVE + 0x378
        .set SAVE_RSP, SAVE + 0x3D8
        .set SAVE_RCX, SAVE + 0x3F0
        .set LMA, 1 << 10
        .set DIRTY, 1 << 6

        .set APIC, 0xFEE00000
        .set APIC_EOI, APIC + 0xB0
        .set APIC_SPURIOUS, APIC + 0xF0
        .set APIC_LVT_TIMER, APIC + 0x320
        .set APIC_INITIAL, APIC + 0x380
        .set APIC_DIVIDE, APIC + 0x3E0
        .set HPET, 0xFED00000
        .set HPET_ENABLE, HPET + 0x10
        .set HPET_COUNTER, HPET + 0xF0
        .set HPET_TIMER, HPET + 0x100
        .set TIMER_OFF, 0x4100                  # 32 bits, message to the APIC; a comparator written to a wider one would be in the past
        .set TIMER_ON, 0x4104
        .set ROUTED_ON, 0x0104 | FIRST_PIN << 9 # 32 bits, to a pin of the I/O APIC
        .set NEXT_PIN, 1 << 9
        .set IOAPIC, 0xFEC00000
        .set IOAPIC_DATA, 0x10
        .set FIRST_PIN, 3

        .section .smm, "ax"
        .code16
        .globl entry
entry:
        rdtsc                                   # first, so that it counts nothing of ours
        movl    %eax, %esi
        movl    %edx, %edi
        addr32 lgdtl %ds:gdt_pointer
        movl    $0x20, %eax                     # PAE
        movl    %eax, %cr4
        movl    $TABLES, %eax
        movl    %eax, %cr3
        movl    $0xC0000080, %ecx
        rdmsr
        orl     $0x100, %eax                    # LME
        wrmsr
        movl    $0x80000001, %eax               # PG, PE
        movl    %eax, %cr0
        ljmpl   $0x08, $long_mode

        .code64
long_mode:
        movl    $0x10, %eax
        movl    %eax, %ds
        movl    %eax, %es
        movl    %eax, %ss
        movl    $STACK, %esp
        shlq    $32, %rdi
        orl     %esi, %esi
        orq     %rsi, %rdi
        movq    %rdi, %r15                      # time stamp of the end
        movl    $APIC_INITIAL, %eax
        movl    $0, (%rax)
        movl    $CONTROL, %ebp
        cmpq    $0, ROUTED(%rbp)
        je      1f
        movl    $HPET_TIMER, %eax               # the stop is the first timer there
        movl    $TIMER_OFF, (%rax)
1:

        cmpq    $0, BOOTED(%rbp)
        jne     booted
        cmpq    $PHASE_RUNNING, PHASE(%rbp)
        je      collect
        cmpq    $PHASE_DISARMED, PHASE(%rbp)
        je      next_job
        jmp     wait

# After a reset, the first or one that a triple fault made: set up what it has undone.
booted:
        movq    $0, BOOTED(%rbp)
        incq    BOOTS(%rbp)
        movl    $APIC_SPURIOUS, %eax
        movl    $0x10F, (%rax)                  # on, with a vector that no case has: Bochs never ends interrupts of this one
        movl    $APIC_DIVIDE, %eax
        movl    $0x0B, (%rax)                   # divide by 1
        movl    $APIC_LVT_TIMER, %eax
        movl    $0x200, (%rax)                  # one shot, delivery mode SMI
        movl    $HPET_ENABLE, %eax
        movl    $1, (%rax)
        movl    $HPET_TIMER, %eax
        movl    $MOST_EVENTS, %ecx
1:      movl    $TIMER_OFF, (%rax)
        addq    $0x20, %rax
        decl    %ecx
        jnz     1b
        lidt    idt_pointer(%rip)
        cmpq    $PHASE_RUNNING, PHASE(%rbp)
        jne     wait
        call    result_place
        movq    $STATUS_SHUTDOWN, RESULT_STATUS(%rbx)
        movq    $0, RESULT_PAGES(%rbx)
        call    restore_all
        call    quiet                           # not every engine's reset reaches the APIC
        jmp     next_job

# A run has ended or was stopped: its observation.
collect:
        call    result_place
        movq    $STATUS_STOPPED, RESULT_STATUS(%rbx)
        movq    %r15, %rax
        subq    STARTED(%rbp), %rax
        movq    %rax, RESULT_TICKS(%rbx)
        cmpq    JOB_LEAST(%r14), %rax
        ja      1f
        cmpq    $0, RESULT_WALKED(%rbx)
        je      again
        jmp     next_step
1:      movq    RESULT_WALKED(%rbx), %rcx
        cmpq    JOB_WALK(%r14), %rcx
        je      observe

# One step of a walk: a note of where the run is, and on by one tick.
        movq    %rcx, %rdi
        shlq    $WALK_SHIFT, %rdi
        addq    RESULT_WALK(%rbx), %rdi
        movq    SAVE_RIP, %rdx
        movq    %rdx, 0x00(%rdi)
        movq    SAVE_RCX, %rax
        movq    %rax, 0x08(%rdi)
        movq    SAVE_RSP, %rax
        movq    %rax, 0x10(%rdi)
        movq    SAVE_RFLAGS, %rax
        movq    %rax, 0x18(%rdi)
        incq    %rcx
        movq    %rcx, RESULT_WALKED(%rbx)
        cmpq    JOB_WALK(%r14), %rcx
        je      observe
        subq    JOB_STUB(%r14), %rdx
        cmpq    $STUB_BYTES, %rdx
        jb      observe
next_step:
        movl    $APIC_INITIAL, %edi
        movl    JOB_STEP(%r14), %esi
        cmpq    $0, ROUTED(%rbp)
        je      set_stop
        movq    %rsi, JOB_EVENT+8(%r14)
        movl    $1, %ecx
        jmp     set_events

observe:
        call    save_registers
        leaq    RESULT_SAVE(%rbx), %rdi
        movl    $SAVE, %esi
        movl    $SAVE_BYTES / 64, %ecx
        call    copy
        call    collect_pages
        lidt    idt_pointer(%rip)
        call    quiet
        movq    JOB_BREAKPOINTS(%r14), %rax
        movzbl  SAVE_DR7, %ecx
        orl     %ecx, %eax
        jz      next_job

# Breakpoints are armed: they have to be taken out by a MOV DR7 that finds DR7 as it was when they were put in.
disarm:
        movq    $PHASE_DISARMED, PHASE(%rbp)
        movl    $SAVE, %edi
        movq    SAVE_DR7, %r8
        andl    $~0x2000, %r8d                  # without GD
        movl    $TRAMPOLINE_SAVE, %esi
        movl    $SAVE_BYTES / 64, %ecx
        call    copy
        movq    %r8, SAVE_DR7
        rsm

        .globl trampoline
trampoline:
        movl    $0x400, %eax
        movq    %rax, %dr7
        xorl    %eax, %eax
        outb    %al, $0xB2
1:      jmp     1b

# The stop of the run before was latched while its end was being handled: nothing has run yet, so begin once more. By way of the
# trampoline, where a stop that has been latched since, before the timer was off, comes and is done with.
again:
        decq    INDEX(%rbp)
        lidt    idt_pointer(%rip)
        call    quiet
        jmp     disarm

next_job:
        incq    INDEX(%rbp)
        movq    INDEX(%rbp), %rax
        cmpq    JOBS(%rbp), %rax
        jae     finished
        movq    OUT_END(%rbp), %rcx
        subq    OUT_NEXT(%rbp), %rcx
        cmpq    $MOST_FRAMES * 4096 + MOST_WALK << WALK_SHIFT, %rcx
        jb      finished                        # no room for what one more run may change
        jmp     start

finished:
        movq    $PHASE_IDLE, PHASE(%rbp)
        cmpq    $0, WATCHED(%rbp)
        je      1f
        movq    $0, WATCHED(%rbp)
        call    restore_all                     # there should be nothing to restore
        movq    %r9, MISSED(%rbp)
1:
        movq    INDEX(%rbp), %rax
        movq    %rax, FINISHED(%rbp)
        movq    TURN(%rbp), %rax
        movq    %rax, DONE(%rbp)

# Nothing to do until the host has written jobs and taken the next turn.
wait:
        movq    TURN(%rbp), %rax
        cmpq    DONE(%rbp), %rax
        jne     1f
        pause
        jmp     wait
1:      movq    $-1, INDEX(%rbp)
        movq    OUT(%rbp), %rax
        movq    %rax, OUT_NEXT(%rbp)
        jmp     next_job

# rbx: the result record, r14: the job record of the run that is under way.
result_place:
        movq    INDEX(%rbp), %rax
        shlq    $RECORD_SHIFT, %rax
        movq    RESULTS(%rbp), %rbx
        addq    %rax, %rbx
        movq    JOB_RECORDS(%rbp), %r14
        addq    %rax, %r14
        ret

# Registers that are not in the save area, in the order of mailbox.LOADED.
save_registers:
        movq    %cr2, %rax
        movq    %rax, RESULT_REGISTERS+0x00(%rbx)
        movq    %cr8, %rax
        movq    %rax, RESULT_REGISTERS+0x08(%rbx)
        movq    %dr0, %rax
        movq    %rax, RESULT_REGISTERS+0x10(%rbx)
        movq    %dr1, %rax
        movq    %rax, RESULT_REGISTERS+0x18(%rbx)
        movq    %dr2, %rax
        movq    %rax, RESULT_REGISTERS+0x20(%rbx)
        movq    %dr3, %rax
        movq    %rax, RESULT_REGISTERS+0x28(%rbx)
        leaq    RESULT_REGISTERS+0x30(%rbx), %rdi
        leaq    msrs(%rip), %rsi
1:      movl    (%rsi), %ecx
        rdmsr
        movl    %eax, (%rdi)
        movl    %edx, 4(%rdi)
        addq    $8, %rdi
        addq    $4, %rsi
        leaq    msrs_end(%rip), %rax
        cmpq    %rax, %rsi
        jne     1b
        ret

load_registers:
        movq    JOB_REGISTERS+0x00(%r14), %rax
        movq    %rax, %cr2
        movq    JOB_REGISTERS+0x08(%r14), %rax
        movq    %rax, %cr8
        movq    JOB_REGISTERS+0x10(%r14), %rax
        movq    %rax, %dr0
        movq    JOB_REGISTERS+0x18(%r14), %rax
        movq    %rax, %dr1
        movq    JOB_REGISTERS+0x20(%r14), %rax
        movq    %rax, %dr2
        movq    JOB_REGISTERS+0x28(%r14), %rax
        movq    %rax, %dr3
        leaq    JOB_REGISTERS+0x30(%r14), %rdi
        leaq    msrs(%rip), %rsi
1:      movl    (%rsi), %ecx
        movl    (%rdi), %eax
        movl    4(%rdi), %edx
        wrmsr
        addq    $8, %rdi
        addq    $4, %rsi
        leaq    msrs_end(%rip), %rax
        cmpq    %rax, %rsi
        jne     1b
        ret

# What the run has changed: each frame that differs from what was loaded there is copied out, and made as it was.
collect_pages:
        xorl    %r9d, %r9d                      # changed so far
        movq    JOB_WATCHED(%r14), %rcx
        testq   %rcx, %rcx
        jz      compare_all
        testl   $LMA, SAVE_EFER
        jz      compare_all
        movq    SAVE_CR3, %rax
        andq    $-4096, %rax
        cmpq    JOB_ROOT(%r14), %rax
        je      1f
        cmpq    JOB_OTHER_ROOT(%r14), %rax
        jne     compare_all
1:      movq    $1, WATCHED(%rbp)
        movq    JOB_WATCH(%r14), %r12
2:      movl    (%r12), %edi
        movl    %edi, %r8d
        shrl    $12, %r8d
        movq    LOADED(,%r8,8), %rsi
        movl    %edi, %eax
        andl    $0xFFF, %eax
        movq    (%rsi,%rax), %rdx
        movq    (%rdi), %rax
        xorq    %rdx, %rax
        jz      4f
        movl    4(%r12), %r10d
        testb   $DIRTY, %al
        jz      3f
        movl    %r10d, %r11d
        andl    $~WATCH_CLEARED, %r11d
        movb    $1, MARKED(%r11)
        testl   %r10d, %r10d
        jns     3f
        cmpq    $DIRTY, %rax
        jne     3f
        movq    %rdx, (%rdi)                    # the flag that was cleared for this, and nothing else
        jmp     4f
3:      movb    $1, MARKED(%r8)
4:      addq    $8, %r12
        decq    %rcx
        jnz     2b

        movl    $MARKED, %r12d
5:      cmpq    $0, (%r12)
        je      7f
        xorl    %ecx, %ecx
6:      cmpb    $0, (%r12,%rcx)
        je      8f
        movb    $0, (%r12,%rcx)
        leal    -MARKED(%r12,%rcx), %r8d
        pushq   %rcx
        call    show
        popq    %rcx
8:      incl    %ecx
        cmpl    $8, %ecx
        jne     6b
7:      addl    $8, %r12d
        cmpl    $MARKED + MOST_FRAMES, %r12d
        jne     5b
        movq    %r9, RESULT_PAGES(%rbx)
        ret

compare_all:
        xorl    %r8d, %r8d                      # frame
1:      call    differs
        je      2f
        call    show
2:      incl    %r8d
        cmpl    $MOST_FRAMES, %r8d
        jne     1b
        movq    %r9, RESULT_PAGES(%rbx)
        ret

# Whether the frame r8 differs from what was loaded there: ZF is clear then.
differs:
        movq    LOADED(,%r8,8), %rsi
        testq   %rsi, %rsi
        jz      2f
        movq    %r8, %rdi
        shlq    $12, %rdi
        movl    $4096 / 64, %ecx
1:      movq    0x00(%rsi), %rax
        xorq    0x00(%rdi), %rax
        movq    0x08(%rsi), %rdx
        xorq    0x08(%rdi), %rdx
        orq     %rdx, %rax
        movq    0x10(%rsi), %rdx
        xorq    0x10(%rdi), %rdx
        orq     %rdx, %rax
        movq    0x18(%rsi), %rdx
        xorq    0x18(%rdi), %rdx
        orq     %rdx, %rax
        movq    0x20(%rsi), %rdx
        xorq    0x20(%rdi), %rdx
        orq     %rdx, %rax
        movq    0x28(%rsi), %rdx
        xorq    0x28(%rdi), %rdx
        orq     %rdx, %rax
        movq    0x30(%rsi), %rdx
        xorq    0x30(%rdi), %rdx
        orq     %rdx, %rax
        movq    0x38(%rsi), %rdx
        xorq    0x38(%rdi), %rdx
        orq     %rdx, %rax
        jnz     2f
        addq    $64, %rsi
        addq    $64, %rdi
        decl    %ecx
        jnz     1b
2:      ret

# Copy the frame r8 out and make it as it was; r9 counts.
show:
        movq    LOADED(,%r8,8), %rsi
        testq   %rsi, %rsi
        jz      6f
        movq    OUT_NEXT(%rbp), %r10
        movl    %r8d, RESULT_LIST(%rbx,%r9,8)
        movl    %r10d, RESULT_LIST+4(%rbx,%r9,8)
        incl    %r9d
        addq    $4096, OUT_NEXT(%rbp)
        movq    %r8, %rdi
        shlq    $12, %rdi
        cmpq    $0, REPEATS(%rbp)
        jne     7f
        movl    $4096 / 16, %ecx
1:      movq    0x00(%rdi), %rax
        movq    0x08(%rdi), %rdx
        movq    %rax, 0x00(%r10)
        movq    %rdx, 0x08(%r10)
        cmpq    %rax, 0x00(%rsi)
        jne     3f
2:      cmpq    %rdx, 0x08(%rsi)
        jne     4f
5:      addq    $16, %rdi
        addq    $16, %rsi
        addq    $16, %r10
        decl    %ecx
        jnz     1b
6:      ret
3:      movq    0x00(%rsi), %rax
        movq    %rax, 0x00(%rdi)
        jmp     2b
4:      movq    0x08(%rsi), %rdx
        movq    %rdx, 0x08(%rdi)
        jmp     5b
7:      pushq   %rsi
        pushq   %rdi
        movq    %rdi, %rsi
        movq    %r10, %rdi
        call    copy_page
        popq    %rdi
        popq    %rsi
        jmp     copy_page

# Frames as they were loaded, after a run whose memory nobody wants to see; r9 counts those that were not.
restore_all:
        xorl    %r8d, %r8d
        xorl    %r9d, %r9d
1:      call    differs
        je      2f
        incl    %r9d
        movq    LOADED(,%r8,8), %rsi
        movq    %r8, %rdi
        shlq    $12, %rdi
        call    load_page
2:      incl    %r8d
        cmpl    $MOST_FRAMES, %r8d
        jne     1b
        ret

# The page at rsi to the frame at rdi. Where code has been translated, what is right already is not written, so that it need not be again.
load_page:
        cmpq    $0, REPEATS(%rbp)
        jne     copy_page
        movl    $4096 / 16, %ecx
1:      movq    0x00(%rsi), %rax
        movq    0x08(%rsi), %rdx
        cmpq    %rax, 0x00(%rdi)
        jne     3f
2:      cmpq    %rdx, 0x08(%rdi)
        jne     4f
5:      addq    $16, %rsi
        addq    $16, %rdi
        decl    %ecx
        jnz     1b
        ret
3:      movq    %rax, 0x00(%rdi)
        jmp     2b
4:      movq    %rdx, 0x08(%rdi)
        jmp     5b

# What is at rsi to rdi, ecx times 64 bytes, in the way that this engine is quick at; rax and rdx are used.
copy_page:
        movl    $4096 / 64, %ecx
copy:
        cmpq    $0, REPEATS(%rbp)
        je      2f
        shll    $3, %ecx
        rep movsq
        ret
2:      movq    0x00(%rsi), %rax
        movq    0x08(%rsi), %rdx
        movq    %rax, 0x00(%rdi)
        movq    %rdx, 0x08(%rdi)
        movq    0x10(%rsi), %rax
        movq    0x18(%rsi), %rdx
        movq    %rax, 0x10(%rdi)
        movq    %rdx, 0x18(%rdi)
        movq    0x20(%rsi), %rax
        movq    0x28(%rsi), %rdx
        movq    %rax, 0x20(%rdi)
        movq    %rdx, 0x28(%rdi)
        movq    0x30(%rsi), %rax
        movq    0x38(%rsi), %rdx
        movq    %rax, 0x30(%rdi)
        movq    %rdx, 0x38(%rdi)
        addq    $64, %rsi
        addq    $64, %rdi
        decl    %ecx
        jnz     2b
        ret

# Nothing of the last run's events may reach the next: timers off, requests taken by handlers of our own, the NMI latch open.
quiet:
        movq    JOB_EVENTS(%r14), %rcx
        testq   %rcx, %rcx
        jz      2f
        movl    $HPET_TIMER, %eax
1:      movl    $TIMER_OFF, (%rax)
        addq    $0x20, %rax
        decq    %rcx
        jnz     1b
        xorl    %eax, %eax
        movq    %rax, %cr8
        movl    $APIC_EOI, %eax                 # of the one interrupt that a case can have
        movl    $0, (%rax)
        sti
        nop
        cli
2:      movq    %rsp, %rax                      # IRET opens the latch
        pushq   $0x10
        pushq   %rax
        pushfq
        pushq   $0x08
        leaq    3f(%rip), %rax
        pushq   %rax
        iretq
3:      ret

drain_interrupt:
        pushq   %rax
        movl    $APIC_EOI, %eax
        movl    $0, (%rax)
        popq    %rax
        iretq
drain_nmi:
        iretq

start:
        call    result_place
        movq    $0, RESULT_WALKED(%rbx)
        movq    OUT_NEXT(%rbp), %rax
        movq    %rax, RESULT_WALK(%rbx)
        movq    JOB_WALK(%r14), %rcx
        shlq    $WALK_SHIFT, %rcx
        addq    $4095, %rcx
        andq    $-4096, %rcx
        addq    %rcx, OUT_NEXT(%rbp)
        leaq    JOB_LIST(%r14), %r12
        movq    JOB_PAGES(%r14), %r13
1:      testq   %r13, %r13
        jz      2f
        movl    (%r12), %edi
        movl    4(%r12), %esi
        movq    %rsi, LOADED(,%rdi,8)
        shlq    $12, %rdi
        call    load_page
        addq    $8, %r12
        decq    %r13
        jmp     1b
2:      call    load_registers
        leaq    JOB_SAVE(%r14), %rsi
        movl    $SAVE, %edi
        movl    $SAVE_BYTES / 64, %ecx
        call    copy
        movq    $PHASE_RUNNING, PHASE(%rbp)
        cmpq    $0, JOB_BREAKPOINTS(%r14)
        je      3f
        movq    SAVE_DR7, %rax
        andl    $~0x2000, %eax
        movq    %rax, %dr7
3:      movl    $APIC_INITIAL, %edi
        movl    JOB_STOP(%r14), %esi
        movq    JOB_EVENTS(%r14), %rcx
        testq   %rcx, %rcx
        jz      set_stop
set_events:
        leaq    JOB_EVENT(%r14), %r12
        movl    $HPET_COUNTER, %eax
        movl    (%rax), %r10d                   # all events count from here
        movl    $HPET_TIMER, %eax
        cmpq    $0, ROUTED(%rbp)
        jne     routed
4:      movq    (%r12), %rdx
        movl    %edx, 0x10(%rax)                # FSB route: the message's data
        movl    $APIC, 0x14(%rax)               # and its address
        movl    8(%r12), %edx
        addl    %r10d, %edx
        movl    %edx, 0x08(%rax)                # comparator
        movl    $TIMER_ON, (%rax)
        addq    $16, %r12
        addq    $0x20, %rax
        decq    %rcx
        jnz     4b
set_stop:
        movl    %esi, (%rdi)                    # the stop counts from here
begin:
        rdtsc
        shlq    $32, %rdx
        orq     %rdx, %rax
        movq    %rax, STARTED(%rbp)
        rsm

# The same for engines whose HPET sends no messages: a pin of the I/O APIC for each timer, with the message in its table.
routed: movl    $IOAPIC, %ebx
        movl    $0x10 + 2 * FIRST_PIN, %edi
        movl    $ROUTED_ON, %r9d
1:      movl    %edi, (%rbx)
        movl    (%r12), %edx
        movl    %edx, IOAPIC_DATA(%rbx)
        movl    8(%r12), %edx
        addl    %r10d, %edx
        movl    %edx, 0x08(%rax)
        movl    %r9d, (%rax)
        addq    $16, %r12
        addq    $0x20, %rax
        addl    $2, %edi
        addl    $NEXT_PIN, %r9d
        decq    %rcx
        jnz     1b
        jmp     begin

        .balign 8
msrs:   .long   0xC0000102, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0x174, 0x175, 0x176
msrs_end:
        .balign 8
gdt:    .quad   0
        .quad   0x00AF9B000000FFFF              # 64-bit code
        .quad   0x00CF93000000FFFF              # data
gdt_pointer:
        .word   . - gdt - 1
        .long   gdt
        .balign 8
idt_pointer:
        .word   256 * 16 - 1
        .quad   IDT
        .globl  drain_interrupt, drain_nmi

# What the machine starts in: real mode at the top of the ROM's last 64 KiB.
        .section .rom, "ax"
        .code16
boot:
        cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    $0x3000, %ax
        movw    %ax, %es
        movw    $relocate - rom_start, %si
        movw    $0x8000, %di
        movw    $relocate_end - relocate, %cx
        rep movsb %cs:(%si), %es:(%di)
        movl    $0x80000B58, %eax               # PIIX4, function 3, register 0x58: let port 0xB2 raise an SMI
        movw    $0xCF8, %dx
        outl    %eax, %dx
        movw    $0xCFF, %dx
        inb     %dx, %al
        orb     $2, %al
        outb    %al, %dx
        movb    $0xFF, %al                      # no interrupts from the two PICs
        outb    %al, $0x21
        outb    %al, $0xA1
        xorb    %al, %al
        outb    %al, $0xB2                      # the first SMI moves SMBASE, the second never returns here
        outb    %al, $0xB2
1:      hlt
        jmp     1b

relocate:
        addr32 movl $SMBASE, %ds:0x3FF00
        addr32 cmpl $0, %ds:ROM_MARKS
        je      2f
        addr32 cmpl $0, %ds:CONTROL + BOOTS
        jne     2f                              # reset
        movl    $MARK_PLACE, %edi               # the host looks for the marks in the memory of the engine's process
        movl    $MARK, %eax
1:      addr32 movl %eax, %ds:(%edi)
        incl    %eax
        addl    $BLOCK, %edi
        cmpl    $MEMORY, %edi
        jb      1b
1:      pause
        addr32 cmpl $MARK, %ds:MARK_PLACE       # until it has put everything in place and taken the first mark away
        je      1b
2:      addr32 movl $1, %ds:CONTROL + BOOTED
        rsm
relocate_end:
        .org    ROM_MARKS - 0xFFFF0000
        .long   0
        .org    0xFFF0
        ljmp    $0xF000, $(boot - rom_start)
        .org    0x10000
        .set    rom_start, boot
