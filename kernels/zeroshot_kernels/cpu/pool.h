// The kernels' threads: a call that runs in parallel is a region of theirs.
#pragma once

#include <omp.h>

#include <atomic>

namespace zeroshot {

// How long a thread spins before it sleeps. Spinning is right while what it waits for comes in microseconds, since to sleep
// and be woken takes longer. It is wrong where that takes a core from whoever is waited for. So a wait that was too long
// halves the patience for the next one, and one that was not restores it.
class Patience {
  public:
    // Whether `is_over()` came true while it lasted.
    template <typename IsOver>
    bool spin_until(IsOver is_over) {
        for (int spins = 0; spins < spins_; ++spins) {
            if (is_over()) {
                spins_ = spins_ + spins_ / 4 < MOST ? spins_ + spins_ / 4 : MOST;
                return true;
            }
            pause();
        }
        spins_ = spins_ / 2 > FEWEST ? spins_ / 2 : FEWEST;
        return false;
    }

  private:
    static constexpr int MOST = 20000, FEWEST = 100;

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#elif defined(__aarch64__)
        asm volatile("yield");
#endif
    }

    int spins_ = MOST;
};

// As many as PyTorch's operators take: `torch.set_num_threads`. Only for the thread that calls a kernel: to OpenMP each
// thread has a number of its own, and within a region all must count with the same one, `Team::num_threads`.
inline int wanted_threads() { return omp_get_max_threads(); }

// run(context, number) by this thread, number 0, and by up to `count` - 1 others that come while it does: whoever comes
// late is not waited for, and one that has come is waited for until it has returned. If another thread of the process is
// in a region, or there is no other thread to be had, this one runs alone.
void run_region(int count, void (*run)(void* context, int number), void* context);

}  // namespace zeroshot
