// Runs a population count of 144 bit pairs on random words; nothing is checked here, the tests do that.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <random>

#include "Vtop.h"

// The library is compiled without Verilator's own; a counter never calls them.
void vl_finish(const char*, int, const char*) { std::abort(); }
void vl_stop(const char*, int, const char*) { std::abort(); }
void vl_fatal(const char*, int, const char*, const char*) { std::abort(); }

extern "C" double cycles_per_second(uint64_t cycles) {
    VerilatedContext context;
    Vtop unit{&context};
    std::mt19937 random{1};
    const auto began = std::chrono::steady_clock::now();
    for (uint64_t cycle = 0; cycle < cycles; ++cycle) {
        for (auto& word : unit.weight_i.m_storage) word = random();
        for (auto& word : unit.column_i.m_storage) word = random();
        unit.negative_i = cycle & 1;
        unit.clk = 0;
        unit.eval();
        unit.clk = 1;
        unit.eval();
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - began;
    return double(cycles) / taken.count();
}
