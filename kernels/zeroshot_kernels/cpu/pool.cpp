#include "pool.h"

#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

namespace zeroshot {
namespace {

class Pool {
  public:
    void run(int count, void (*run)(void*, int), void* context) {
        const std::unique_lock<std::mutex> lock(one_region_, std::try_to_lock);
        if (!lock || count <= 1 || !has_threads(count - 1)) return run(context, 0);
        run_ = run;
        context_ = context;
        count_ = count;
        inside_.store(OPEN, std::memory_order_release);
        region_.fetch_add(1, std::memory_order_release);
        region_.notify_all();
        run(context, 0);
        std::uint32_t inside = inside_.fetch_and(~OPEN, std::memory_order_acq_rel) & ~OPEN;
        if (inside == 0 || patience_.spin_until([&] { return inside_.load(std::memory_order_acquire) == 0; })) return;
        while ((inside = inside_.load(std::memory_order_acquire)) != 0) inside_.wait(inside, std::memory_order_acquire);
    }

  private:
    static constexpr std::uint32_t OPEN = 1u << 31;

    std::mutex one_region_;
    int num_threads_ = 0;
    void (*run_)(void*, int) = nullptr;
    void* context_ = nullptr;
    int count_ = 0;
    Patience patience_;
    alignas(64) std::atomic<std::uint32_t> region_{0};  // how many there have been
    alignas(64) std::atomic<std::uint32_t> inside_{0};  // how many others are in the region, and OPEN while more may come

    bool has_threads(int count) {
        try {
            for (; num_threads_ < count; ++num_threads_)
                std::thread([this, number = num_threads_ + 1] { work(number); }).detach();
        } catch (const std::system_error&) {  // the machine has no room for one
        }
        return num_threads_ > 0;
    }

    void work(int number) {
        Patience patience;
        std::uint32_t seen = region_.load(std::memory_order_acquire);
        while (true) {
            if (!patience.spin_until([&] { return region_.load(std::memory_order_acquire) != seen; }))
                region_.wait(seen, std::memory_order_acquire);
            seen = region_.load(std::memory_order_acquire);
            if (!enter()) continue;
            if (number < count_) run_(context_, number);
            if (inside_.fetch_sub(1, std::memory_order_acq_rel) == 1) inside_.notify_one();
        }
    }

    bool enter() {
        std::uint32_t inside = inside_.load(std::memory_order_acquire);
        while (inside & OPEN)
            if (inside_.compare_exchange_weak(inside, inside + 1, std::memory_order_acq_rel)) return true;
        return false;
    }
};

}  // namespace

void run_region(int count, void (*run)(void*, int), void* context) {
    static Pool& pool = *new Pool;  // never destroyed: its threads outlive whatever the process destroys at its end
    pool.run(count, run, context);
}

}  // namespace zeroshot
