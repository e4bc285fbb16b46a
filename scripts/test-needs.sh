# Sourced: everything that the checks and tests need, here and in .venv.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

compilers=(gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf gcc-aarch64-linux-gnu picolibc-aarch64-linux-gnu
    gcc-arm-none-eabi picolibc-arm-none-eabi gcc-i686-linux-gnu)
case "$(uname -m)" in
aarch64) compilers=("${compilers[@]/gcc-aarch64-linux-gnu/gcc}" gcc-x86-64-linux-gnu) ;;
x86_64) ;;
*) compilers+=(gcc-x86-64-linux-gnu) ;;
esac
need_packages python3-venv python3-dev gcc libc6-dev gdb-multiarch qemu-utils e2fsprogs "${compilers[@]}"
need_venv
