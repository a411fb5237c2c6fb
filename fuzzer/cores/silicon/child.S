# The process in which cases run on the host's own processor: no libc, no thread-local storage, nothing in memory but this text, the
# shared file and the pages of the case. Layout of the shared file and of a slot: exchange.py, which writes constants.inc.
.intel_syntax noprefix
.include "constants.inc"

.set SYS_READ, 0
.set SYS_WRITE, 1
.set SYS_MMAP, 9
.set SYS_MPROTECT, 10
.set SYS_SIGACTION, 13
.set SYS_SIGRETURN, 15
.set SYS_SIGALTSTACK, 131
.set SYS_MODIFY_LDT, 154
.set SYS_PRCTL, 157
.set SYS32_SET_THREAD_AREA, 243
.set SYS_EXIT_GROUP, 231

# Offsets in struct ucontext of Linux on x86-64.
.set UC_R8, 40
.set UC_RDI, 104
.set UC_RSI, 112
.set UC_RBP, 120
.set UC_RBX, 128
.set UC_RDX, 136
.set UC_RAX, 144
.set UC_RCX, 152
.set UC_RSP, 160
.set UC_RIP, 168
.set UC_FLAGS, 176
.set UC_SELECTORS, 184
.set UC_ERROR, 192
.set UC_TRAP, 200
.set UC_CR2, 216

.set SIGUSR1, 10

.text
.globl _start
_start:
    # The shared file: descriptor 1, all of it, at SHARED.
    mov eax, SYS_MMAP
    movabs rdi, offset SHARED
    mov esi, SHARED_SIZE
    mov edx, 3
    mov r10d, 0x11              # MAP_SHARED | MAP_FIXED
    mov r8d, 1
    xor r9d, r9d
    syscall
    movabs rbx, offset SHARED
    cmp rax, rbx
    jne fail

    # The pages of the case, each at its own address.
    xor r12d, r12d
1:  mov rdi, [rbx + CONTROL_ADDRESSES + r12 * 8]
    movzx edx, byte ptr [rbx + CONTROL_PROTECTIONS + r12]
    mov eax, SYS_MMAP
    mov esi, 4096
    mov r10d, 0x108011          # and MAP_FIXED_NOREPLACE
    mov r8d, 1
    mov r9, r12
    shl r9, 12
    add r9, USER_PAGES
    mov r13, rdi
    syscall
    cmp rax, r13
    jne fail
    inc r12
    cmp r12, PAGES
    jne 1b

    # Descriptors: the ones for the GDT first, then those for the LDT; 16 bytes each, struct user_desc.
    xor r12d, r12d
2:  cmp r12, [rbx + CONTROL_DESCRIPTORS]
    jae 4f
    mov rsi, r12
    shl rsi, 4
    lea rsi, [rbx + rsi + CONTROL_USER_DESC]
    cmp r12, [rbx + CONTROL_GDT_DESCRIPTORS]
    jae 3f
    mov rdi, [rbx + CONTROL_ADDRESSES + LENT_PAGE * 8]    # a 32-bit system call: its argument lies low
    mov byte ptr [rbx + CONTROL_CHANGED + LENT_PAGE], 1
    mov rax, [rsi]
    mov [rdi], rax
    mov rax, [rsi + 8]
    mov [rdi + 8], rax
    mov r13, rbx
    mov ebx, edi
    mov eax, SYS32_SET_THREAD_AREA
    int 0x80
    mov rbx, r13
    test eax, eax
    jnz fail
    inc r12
    jmp 2b
3:  mov edi, 0x11
    mov edx, 16
    mov eax, SYS_MODIFY_LDT
    syscall
    test eax, eax
    jnz fail
    inc r12
    jmp 2b

    # An alternate stack and one handler for everything.
4:  lea rax, [rbx + SIGNAL_STACK]
    mov [rbx + CONTROL_SCRATCH], rax
    mov qword ptr [rbx + CONTROL_SCRATCH + 8], 0
    mov qword ptr [rbx + CONTROL_SCRATCH + 16], SIGNAL_STACK_SIZE
    lea rdi, [rbx + CONTROL_SCRATCH]
    xor esi, esi
    mov eax, SYS_SIGALTSTACK
    syscall
    test rax, rax
    jnz fail
    lea rax, [rip + handler]
    mov [rbx + CONTROL_SCRATCH], rax
    mov qword ptr [rbx + CONTROL_SCRATCH + 8], 0x5C000004   # SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER | SA_RESTORER
    lea rax, [rip + restorer]
    mov [rbx + CONTROL_SCRATCH + 16], rax
    mov qword ptr [rbx + CONTROL_SCRATCH + 24], 0
    lea r12, [rip + signals]
5:  movzx edi, byte ptr [r12]
    test edi, edi
    jz 6f
    lea rsi, [rbx + CONTROL_SCRATCH]
    xor edx, edx
    mov r10d, 8
    mov eax, SYS_SIGACTION
    syscall
    test rax, rax
    jnz fail
    inc r12
    jmp 5b

    # System calls only from here: everywhere else one is a SIGSYS.
6:  mov edi, 1                  # PR_SET_PDEATHSIG
    mov esi, 9
    mov eax, SYS_PRCTL
    syscall
    mov edi, 38                 # PR_SET_NO_NEW_PRIVS
    mov esi, 1
    xor edx, edx
    xor r10d, r10d
    xor r8d, r8d
    mov eax, SYS_PRCTL
    syscall
    test rax, rax
    jnz fail
    mov word ptr [rbx + CONTROL_SCRATCH], (filter_end - filter) / 8
    lea rax, [rip + filter]
    mov [rbx + CONTROL_SCRATCH + 8], rax
    mov edi, 22                 # PR_SET_SECCOMP
    mov esi, 2                  # SECCOMP_MODE_FILTER
    lea rdx, [rbx + CONTROL_SCRATCH]
    mov eax, SYS_PRCTL
    syscall
    test rax, rax
    jnz fail

# A batch is done (or none was asked for yet): say so on the socket, descriptor 0, and wait for the next.
batch:
    movabs rbx, offset SHARED
    lea rsp, [rbx + SIGNAL_STACK + SIGNAL_STACK_SIZE]
    xor edi, edi
    lea rsi, [rbx + CONTROL_SCRATCH]
    mov edx, 1
    mov eax, SYS_WRITE
    syscall
    cmp rax, 1
    jne fail
    xor edi, edi
    lea rsi, [rbx + CONTROL_SCRATCH]
    mov edx, 1
    mov eax, SYS_READ
    syscall
    cmp rax, 1
    jne leave_
    # What Linux put behind the selector of the CPU number, which user mode may read.
    mov ecx, CPU_SELECTOR
    xor eax, eax
    lsl eax, ecx
    mov [rbx + CONTROL_CPU_LIMIT], rax
    xor eax, eax
    lar eax, ecx
    mov [rbx + CONTROL_CPU_RIGHTS], rax
    mov qword ptr [rbx + CONTROL_NUMBER], 0

# Run case CONTROL_NUMBER of the batch: its pages, their rights, its registers.
next:
    mov rax, [rbx + CONTROL_NUMBER]
    cmp rax, [rbx + CONTROL_COUNT]
    jae batch
    imul rax, rax, SLOT_SIZE
    lea r15, [rbx + rax + SLOTS]
    mov [rbx + CONTROL_SLOT], r15
    xor r12d, r12d
    mov r13, [r15 + IN_PAGE_MASK]
1:  bt r13, r12
    jnc 2f
    mov rsi, r12
    shl rsi, 12
    lea rsi, [r15 + rsi + SLOT_IN_PAGES]
    mov byte ptr [rbx + CONTROL_CHANGED + r12], 1
    jmp 3f
2:  cmp byte ptr [rbx + CONTROL_CHANGED + r12], 0
    je 4f
    mov rsi, r12
    shl rsi, 12
    lea rsi, [rbx + rsi + TEMPLATE_PAGES]
    mov byte ptr [rbx + CONTROL_CHANGED + r12], 0
3:  mov rdi, r12
    shl rdi, 12
    lea rdi, [rbx + rdi + USER_PAGES]
    mov ecx, 4096
    rep movsb
4:  movzx edx, byte ptr [r15 + IN_PROTECTIONS + r12]
    cmp dl, [rbx + CONTROL_PROTECTIONS + r12]
    je 5f
    mov [rbx + CONTROL_PROTECTIONS + r12], dl
    mov rdi, [rbx + CONTROL_ADDRESSES + r12 * 8]
    mov esi, 4096
    mov eax, SYS_MPROTECT
    syscall
    test rax, rax
    jnz fail
5:  inc r12
    cmp r12, PAGES
    jne 1b

    mov ds, word ptr [r15 + IN_DS]
    mov es, word ptr [r15 + IN_ES]
    mov fs, word ptr [r15 + IN_FS]
    mov gs, word ptr [r15 + IN_GS]
    mov rax, [r15 + IN_FS_BASE]
    wrfsbase rax
    mov rax, [r15 + IN_GS_BASE]
    wrgsbase rax
    mov rsp, r15
    mov rax, [rsp + 8 * 0]
    mov rcx, [rsp + 8 * 1]
    mov rdx, [rsp + 8 * 2]
    mov rbx, [rsp + 8 * 3]
    mov rbp, [rsp + 8 * 5]
    mov rsi, [rsp + 8 * 6]
    mov rdi, [rsp + 8 * 7]
    mov r8, [rsp + 8 * 8]
    mov r9, [rsp + 8 * 9]
    mov r10, [rsp + 8 * 10]
    mov r11, [rsp + 8 * 11]
    mov r12, [rsp + 8 * 12]
    mov r13, [rsp + 8 * 13]
    mov r14, [rsp + 8 * 14]
    mov r15, [rsp + 8 * 15]
    lea rsp, [rsp + IN_RIP]
enter:
    iretq

# The first event of a case: what the kernel was told by the processor. RDI signal, RDX context.
handler:
    push 0x202
    popfq
    movabs rbx, offset SHARED
    mov r15, [rbx + CONTROL_SLOT]
    mov rax, [rdx + UC_RIP]
    lea rcx, [rip + _start]
    cmp rax, rcx
    jb 1f
    lea rcx, [rip + text_end]
    cmp rax, rcx
    jae 1f
    lea rcx, [rip + enter]
    cmp rax, rcx
    je 1f
    cmp edi, SIGUSR1            # the watchdog, too late: go on
    jne fail
    ret
1:  mov [r15 + OUT_SIGNAL], rdi
    mov eax, ds
    mov [r15 + OUT_DS], rax
    mov eax, es
    mov [r15 + OUT_ES], rax
    mov eax, fs
    mov [r15 + OUT_FS], rax
    mov eax, gs
    mov [r15 + OUT_GS], rax
    rdfsbase rax
    mov [r15 + OUT_FS_BASE], rax
    rdgsbase rax
    mov [r15 + OUT_GS_BASE], rax
    movzx eax, word ptr [rdx + UC_SELECTORS]
    mov [r15 + OUT_CS], rax
    movzx eax, word ptr [rdx + UC_SELECTORS + 6]
    mov [r15 + OUT_SS], rax

    .macro keep from, to
    mov rax, [rdx + \from]
    mov [r15 + \to], rax
    .endm
    keep UC_RAX, OUT_GPR
    keep UC_RCX, OUT_GPR+8
    keep UC_RDX, OUT_GPR+16
    keep UC_RBX, OUT_GPR+24
    keep UC_RSP, OUT_GPR+32
    keep UC_RBP, OUT_GPR+40
    keep UC_RSI, OUT_GPR+48
    keep UC_RDI, OUT_GPR+56
    .irp n, 0,1,2,3,4,5,6,7
    keep (UC_R8+8*\n), (OUT_GPR+64+8*\n)
    .endr
    keep UC_RIP, OUT_RIP
    keep UC_FLAGS, OUT_FLAGS
    keep UC_ERROR, OUT_ERROR
    keep UC_TRAP, OUT_VECTOR
    keep UC_CR2, OUT_CR2

    # Which pages changed, and what is in them now.
    xor r12d, r12d
    xor r14d, r14d
    mov r13, [r15 + IN_PAGE_MASK]
2:  mov r8, r12
    shl r8, 12
    lea rdi, [rbx + r8 + USER_PAGES]
    lea rsi, [rbx + r8 + TEMPLATE_PAGES]
    bt r13, r12
    jnc 3f
    lea rsi, [r15 + r8 + SLOT_IN_PAGES]
3:  mov ecx, 512
    repe cmpsq
    je 4f
    bts r14, r12
    mov byte ptr [rbx + CONTROL_CHANGED + r12], 1
    lea rsi, [rbx + r8 + USER_PAGES]
    lea rdi, [r15 + r8 + SLOT_OUT_PAGES]
    mov ecx, 4096
    rep movsb
4:  inc r12
    cmp r12, PAGES
    jne 2b
    mov [r15 + OUT_DIRTY_MASK], r14
    inc qword ptr [rbx + CONTROL_NUMBER]
    jmp next

restorer:
    mov eax, SYS_SIGRETURN
    syscall

fail:
    mov edi, 1
    jmp 1f
leave_:
    xor edi, edi
1:  mov eax, SYS_EXIT_GROUP
    syscall
    ud2

signals:                        # SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGUSR1, SIGSEGV, SIGSYS
    .byte 4, 5, 7, 8, SIGUSR1, 11, 31, 0

    .balign 8
filter:                         # struct sock_filter: allow what comes from this text, by the upper half of the instruction pointer
    .short 0x20                 # BPF_LD | BPF_W | BPF_ABS
    .byte 0, 0
    .long 12                    # instruction_pointer, upper half
    .short 0x15                 # BPF_JMP | BPF_JEQ | BPF_K
    .byte 0, 1
    .long TEXT >> 32
    .short 0x06                 # BPF_RET | BPF_K
    .byte 0, 0
    .long 0x7FFF0000            # SECCOMP_RET_ALLOW
    .short 0x06
    .byte 0, 0
    .long 0x00030000            # SECCOMP_RET_TRAP
filter_end:
text_end:
