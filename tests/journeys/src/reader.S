# A guest of one sector: reads its whole disk through the BIOS, 32 KiB at a time, writes a checksum of each piece to the
# serial line, and switches the machine off. After a piece that cannot be read it writes E and stops.
# The checksum of 32-bit words: c = rotate_left(c, 1) + word.
        .code16
        .globl  _start
_start: xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        cld
        movb    %dl, drive
piece:  movw    $packet, %si
        movb    drive, %dl
        movb    $0x42, %ah              # extended read: INT 13h extensions
        int     $0x13
        jc      failed
        pushw   %ds
        movw    $0x1000, %ax
        movw    %ax, %ds
        xorw    %si, %si
        xorl    %ebx, %ebx
        movw    $8192, %cx
word:   lodsl
        roll    $1, %ebx
        addl    %eax, %ebx
        loop    word
        popw    %ds
        movw    $8, %cx
digit:  roll    $4, %ebx
        movb    %bl, %al
        andb    $15, %al
        addb    $'0', %al
        cmpb    $'9', %al
        jbe     1f
        addb    $39, %al                # from behind 9 to a
1:      call    write
        loop    digit
        movb    $'\n', %al
        call    write
        addl    $64, sector
        movl    sector, %eax
        cmpl    $SECTORS, %eax
        jb      piece
        movb    $'.', %al
        jmp     last
failed: movb    $'E', %al
last:   call    write
        movb    $'\n', %al
        call    write
        movw    $0x604, %dx             # the machine's ACPI control register: sleep type 0 is off
        movw    $0x2000, %ax
        outw    %ax, %dx
1:      hlt
        jmp     1b
write:  pushw   %ax                     # AL to the first serial port, when it takes it
        movw    $0x3fd, %dx
1:      inb     %dx, %al
        testb   $0x20, %al
        jz      1b
        popw    %ax
        movw    $0x3f8, %dx
        outb    %al, %dx
        ret
drive:  .byte   0
packet: .byte   16, 0                   # its size
        .word   64                      # sectors
        .word   0, 0x1000               # to
sector: .long   0, 0
        .org    510
        .word   0xaa55
