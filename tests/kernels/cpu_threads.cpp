// Regions of the CPU kernels' threads, called by several threads at once: each must find what one thread alone finds.
// Arguments: how many threads a region has, and how many regions each caller makes.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "team.h"

using namespace zeroshot;

constexpr std::size_t MOST = 40;

// Steps that each need what the one before has done. `share(n, visit)` visits every number below n.
template <typename Share>
std::vector<long> steps(Index num_items, int num_steps, std::vector<long> numbers, Share share) {
    std::vector<long> sums(MOST);
    share([&](auto each) {
        for (int step = 0; step < num_steps; ++step) {
            each(num_items, [&](Index i) { sums[i] = numbers[i] + numbers[(i + 1) % num_items]; });
            each(num_items, [&](Index i) { numbers[i] = sums[i] % 1000003; });
        }
    });
    return numbers;
}

void call(unsigned seed, int num_regions) {
    for (int region = 0; region < num_regions; ++region) {
        seed = seed * 1664525 + 1013904223;
        const Index num_items = 1 + seed % (MOST - 1), chunk = 1 + (seed >> 16) % 3;
        const int num_steps = 1 + (seed >> 8) % 6;
        const std::vector<long> numbers(MOST, seed % 1000);
        const auto found = steps(num_items, num_steps, numbers, [&](auto run) {
            in_parallel([&](Team& team) {
                run([&](Index n, auto visit) { team.share(n, chunk, visit); });
            });
        });
        const auto expected = steps(num_items, num_steps, numbers, [&](auto run) {
            run([](Index n, auto visit) {
                for (Index i = 0; i < n; ++i) visit(i);
            });
        });
        if (found != expected) {
            std::printf("region %d of seed %u is wrong\n", region, seed);
            std::exit(1);
        }
        if (region % 200 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));  // long enough to fall asleep
    }
}

int main(int, char** arguments) {
    const int num_threads = std::atoi(arguments[1]), num_regions = std::atoi(arguments[2]);
    const auto caller = [=](unsigned seed, int threads) {
        omp_set_num_threads(threads);
        call(seed, num_regions);
    };
    caller(1, num_threads);
    std::thread second(caller, 2, num_threads), third(caller, 3, 1 + num_threads / 2);
    second.join();
    third.join();
    std::puts("right");
}
