/* The pause process: pid 1 of a pod's sandbox. Holds the namespaces, reaps orphans, leaves on SIGTERM or SIGINT.
 *
 * No libc: three system calls need none, and what every pod runs should cost a page or two. Signals are blocked and
 * waited for instead of handled, since the kernel throws away signals to a pid 1 that neither blocks nor handles them. */

#include <linux/signal.h>

typedef unsigned long word;

#if defined(__x86_64__)
enum { NR_SIGPROCMASK = 14, NR_WAIT4 = 61, NR_SIGTIMEDWAIT = 128, NR_EXIT = 231 };
static long call(long nr, word a, word b, word c, word d)
{
	long result;
	register word r10 __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(result) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return result;
}
#elif defined(__aarch64__)
enum { NR_SIGPROCMASK = 135, NR_WAIT4 = 260, NR_SIGTIMEDWAIT = 137, NR_EXIT = 94 };
static long call(long nr, word a, word b, word c, word d)
{
	register long x8 __asm__("x8") = nr;
	register word x0 __asm__("x0") = a;
	register word x1 __asm__("x1") = b;
	register word x2 __asm__("x2") = c;
	register word x3 __asm__("x3") = d;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return (long)x0;
}
#elif defined(__riscv) && __riscv_xlen == 64
enum { NR_SIGPROCMASK = 135, NR_WAIT4 = 260, NR_SIGTIMEDWAIT = 137, NR_EXIT = 94 };
static long call(long nr, word a, word b, word c, word d)
{
	register long a7 __asm__("a7") = nr;
	register word a0 __asm__("a0") = a;
	register word a1 __asm__("a1") = b;
	register word a2 __asm__("a2") = c;
	register word a3 __asm__("a3") = d;
	__asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3) : "memory");
	return (long)a0;
}
#else
#error "pause: no system calls known for this architecture"
#endif

#define BIT(signal) (1UL << ((signal) - 1))

void _start(void)
{
	static const word set = BIT(SIGTERM) | BIT(SIGINT) | BIT(SIGCHLD);

	call(NR_SIGPROCMASK, SIG_BLOCK, (word)&set, 0, sizeof set);
	for (;;) {
		long signal = call(NR_SIGTIMEDWAIT, (word)&set, 0, 0, sizeof set);
		if (signal == SIGTERM || signal == SIGINT)
			call(NR_EXIT, 0, 0, 0, 0);
		while (call(NR_WAIT4, (word)-1, 0, 1 /* WNOHANG */, 0) > 0)
			;
	}
}
