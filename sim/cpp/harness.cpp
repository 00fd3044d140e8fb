// The compiled simulation: bs_top clocked from C++ with the memory behind its masters, a master on its registers, and a
// recorder on the ports that the tensor monitor watches. sim/compiled.py is the other side of the C interface below.
//
// A cycle is: inputs settle with the clock low; everything outside the engine looks at that moment, which is the one just
// before the rising edge; the clock rises; what was decided is driven.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "Vtop.h"
#include "axi_memory.hpp"
#include "signal.hpp"
#if VM_TRACE_FST
#include "verilated_fst_c.h"
using Trace = VerilatedFstC;
#elif VM_TRACE
#include "verilated_vcd_c.h"
using Trace = VerilatedVcdC;
#endif
#if VM_COVERAGE
#include <unistd.h>
#include "verilated_cov.h"
#endif

// What the model would end the process with ends the call instead.
void vl_finish(const char* file, int line, const char*) {
    throw std::runtime_error(std::string("the RTL called $finish at ") + file + ":" + std::to_string(line));
}
void vl_stop(const char* file, int line, const char*) {
    throw std::runtime_error(std::string("the RTL stopped at ") + file + ":" + std::to_string(line));
}
void vl_fatal(const char* file, int line, const char*, const char* message) {
    throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + message);
}

namespace {

const std::string WRITE_BACK = "bs_top.u_core.u_write_back";
const std::string CORE = "bs_top.u_core";

// Writes of one buffer port, as records: cycle (8 bytes), row (4), enables (4), data.
struct Recorder {
    Signal enable, row, data;
    std::vector<uint8_t> records;
    size_t record_bytes = 0;

    void open(VerilatedContext& context, const std::string& port) {
        enable = Signal(context, WRITE_BACK, port + "_we_o");
        row = Signal(context, WRITE_BACK, port + "_row_o");
        data = Signal(context, WRITE_BACK, port + "_data_o");
        record_bytes = 16 + data.bytes();
    }

    void sample(uint64_t cycle) {
        const uint32_t enables = static_cast<uint32_t>(enable.get());
        if (!enables) return;
        const uint32_t where = static_cast<uint32_t>(row.get());
        const size_t at = records.size();
        records.resize(at + record_bytes);
        uint8_t* const record = records.data() + at;
        std::memcpy(record, &cycle, 8);
        std::memcpy(record + 8, &where, 4);
        std::memcpy(record + 12, &enables, 4);
        std::memcpy(record + 16, data.data(), data.bytes());
    }
};

struct Issue {
    uint64_t cycle, layer;
};

class Engine {
 public:
    Engine(uint8_t* storage, uint64_t size, uint64_t base, double rate, const Timing& timing, const uint32_t* random_state)
        : memory(storage, size, base, rate, random_state) {
        context.fatalOnError(true);
        context.traceEverOn(VM_TRACE);
        // Registers and memories come up with values of their own, as on a chip without a reset of every flip-flop.
        context.randReset(2);
        context.randSeed(static_cast<int>(random_state[0] & 0x7ffffffe) | 1);
        top = std::make_unique<Vtop>(&context, "");
        auto port = [&](const char* name) { return Signal(context, "TOP", name); };
        auto bus = [&](const char* name) { return Signal(context, "TOP", std::string("s_axil_") + name); };
        clk = port("clk"), rst = port("rst"), irq = port("irq_o");
        awaddr = bus("awaddr"), awvalid = bus("awvalid"), awready = bus("awready");
        wdata = bus("wdata"), wstrb = bus("wstrb"), wvalid = bus("wvalid"), wready = bus("wready");
        bvalid = bus("bvalid"), bresp = bus("bresp"), bready = bus("bready");
        araddr = bus("araddr"), arvalid = bus("arvalid"), arready = bus("arready");
        rvalid = bus("rvalid"), rdata = bus("rdata"), rresp = bus("rresp"), rready = bus("rready");
        for (int index = 0;; ++index) {
            const std::string prefix = "m_axi_" + std::to_string(index);
            if (!Signal::exists(context, "TOP", prefix + "_arvalid") && !Signal::exists(context, "TOP", prefix + "_awvalid"))
                break;
            memory.attach(context, prefix, timing, drives);
        }
        planes.open(context, "plane");
        bytes.open(context, "byte");
        first_word = Signal(context, CORE, "layer_first_q"), layer = Signal(context, CORE, "layer_index_q");
        logits_valid = Signal(context, WRITE_BACK, "logits_valid_o");
        logits_last = Signal(context, WRITE_BACK, "logits_last_o");
    }

    ~Engine() {
#if VM_TRACE
        if (trace) trace->close();
#endif
        top->final();
#if VM_COVERAGE
        // See COVERAGE in sim/verilator.py.
        static std::atomic<int> written{0};
        if (const char* const folder = std::getenv("BITSMITH_COVERAGE")) {
            const std::string name = std::to_string(getpid()) + "-" + std::to_string(written++) + ".dat";
            context.coveragep()->write((std::string(folder) + "/engine-" + name).c_str());
        }
#endif
    }

    void reset(int cycles) {
        serving = false;
        memory.reset();
        rst.set(1);
        for (int i = 0; i < cycles; ++i) cycle();
        rst.set(0);
        serving = true;
    }

    int write(uint32_t address, uint32_t value) {
        unasked(bvalid, "bvalid");
        awaddr.set(address), awvalid.set(1);
        wdata.set(value), wstrb.set(15), wvalid.set(1);
        bool address_open = true, data_open = true;
        for (int waited = 0; address_open || data_open; ++waited) {
            settle();
            const bool address_taken = address_open && awready.get(), data_taken = data_open && wready.get();
            cycle();
            if (address_taken) address_open = false, awvalid.set(0);
            if (data_taken) data_open = false, wvalid.set(0);
            patience(waited, address);
        }
        bready.set(1);
        for (int waited = 0;; ++waited) {
            settle();
            const bool answered = bvalid.get();
            const int response = static_cast<int>(bresp.get());
            cycle();
            if (answered) {
                bready.set(0);
                unasked(bvalid, "bvalid");
                return response;
            }
            patience(waited, address);
        }
    }

    int read(uint32_t address, uint32_t* value) {
        unasked(rvalid, "rvalid");
        araddr.set(address), arvalid.set(1);
        for (int waited = 0;; ++waited) {
            settle();
            const bool taken = arready.get();
            cycle();
            if (taken) break;
            patience(waited, address);
        }
        arvalid.set(0), rready.set(1);
        for (int waited = 0;; ++waited) {
            settle();
            const bool answered = rvalid.get();
            *value = static_cast<uint32_t>(rdata.get());
            const int response = static_cast<int>(rresp.get());
            cycle();
            if (answered) {
                rready.set(0);
                unasked(rvalid, "rvalid");
                return response;
            }
            patience(waited, address);
        }
    }

    // Whether the interrupt was seen before a rising edge.
    bool run(uint64_t cycles, bool until_irq) {
        for (uint64_t i = 0; i < cycles; ++i) {
            if (until_irq) {
                settle();
                const bool raised = irq.get();
                cycle();
                if (raised) return true;
            } else {
                cycle();
            }
        }
        return false;
    }

    // The cycles from `first` to `last` since bitsmith_watch alone; everything where `last` is 0.
    void open_trace(const char* path, uint64_t first, uint64_t last) {
#if VM_TRACE
        window_first = first, window_last = last;
        trace = std::make_unique<Trace>();
        top->trace(trace.get(), 99);
        trace->open(path);
#else
        throw std::runtime_error(std::string("this build records no waves; asked for ") + path + " from cycle " +
                                 std::to_string(first) + " to " + std::to_string(last));
#endif
    }

    VerilatedContext context;
    Memory memory;
    Recorder planes, bytes;
    std::vector<Issue> issues;
    uint64_t now = 0, watched_from = 0, logits_seen = 0;
    bool watching = false;
    std::string error;

 private:
    static constexpr int PATIENCE = 10000;

    // Registers answer each access once.
    void unasked(const Signal& valid, const char* name) {
        settle();
        if (valid.get()) throw std::runtime_error(std::string("s_axil_") + name + " is high, and nothing was asked");
    }

    static void patience(int waited, uint32_t address) {
        if (waited > PATIENCE) throw std::runtime_error("register " + std::to_string(address) + " does not answer");
    }

    void settle() {
        if (settled) return;
        clk.set(0);
        top->eval();
        dump();
        settled = true;
    }

    void cycle() {
        settle();
        ++now;
        if (watching) watch();
        if (serving) memory.step();
        clk.set(1);
        top->eval();
        dump();
        drives.apply();
        settled = false;
    }

    void watch() {
        const uint64_t time = now - watched_from;
        planes.sample(time);
        bytes.sample(time);
        if (first_word.get()) issues.push_back({time, layer.get()});
        logits_seen += logits_valid.get() & logits_last.get();
    }

    void dump() {
#if VM_TRACE
        if (!trace) return;
        if (!window_last) {
            trace->dump(dumped++);
        } else if (watching) {
            // The rising edge that ends cycle c is at time 2 c - 1.
            const uint64_t time = now - watched_from;
            if (time + 1 >= window_first && time <= window_last) trace->dump(2 * time - clk.get());
        }
#endif
    }

    std::unique_ptr<Vtop> top;
    Drives drives;
    bool settled = false, serving = false;
    Signal clk, rst, irq;
    Signal awaddr, awvalid, awready, wdata, wstrb, wvalid, wready, bvalid, bresp, bready;
    Signal araddr, arvalid, arready, rvalid, rdata, rresp, rready;
    Signal first_word, layer, logits_valid, logits_last;
#if VM_TRACE
    std::unique_ptr<Trace> trace;
    uint64_t dumped = 0, window_first = 0, window_last = 0;
#endif
};

template <typename Work>
int guarded(Engine* engine, const Work& work) {
    try {
        return work();
    } catch (const std::exception& caught) {
        engine->error = caught.what();
        return -1;
    }
}

}  // namespace

extern "C" {

// Null and a message in `error` (of `room` bytes) where the model lacks a signal.
Engine* bitsmith_new(uint8_t* storage, uint64_t size, uint64_t base, double rate, uint32_t latency_low, uint32_t latency_high,
                     double stall, uint32_t outstanding, const uint32_t* random_state, char* error, uint64_t room) {
    try {
        return new Engine(storage, size, base, rate, {latency_low, latency_high, stall, outstanding}, random_state);
    } catch (const std::exception& caught) {
        std::strncpy(error, caught.what(), room - 1);
        return nullptr;
    }
}

void bitsmith_delete(Engine* engine) { delete engine; }

const char* bitsmith_error(const Engine* engine) { return engine->error.c_str(); }

// -1 from any function below: see bitsmith_error.
int bitsmith_reset(Engine* engine, int cycles) {
    return guarded(engine, [&] { return engine->reset(cycles), 0; });
}

// The AXI response.
int bitsmith_write(Engine* engine, uint32_t address, uint32_t value) {
    return guarded(engine, [&] { return engine->write(address, value); });
}

int bitsmith_read(Engine* engine, uint32_t address, uint32_t* value) {
    return guarded(engine, [&] { return engine->read(address, value); });
}

// 1 where the interrupt ended it.
int bitsmith_run(Engine* engine, uint64_t cycles, int until_irq) {
    return guarded(engine, [&] { return static_cast<int>(engine->run(cycles, until_irq != 0)); });
}

int bitsmith_trace(Engine* engine, const char* path, uint64_t first, uint64_t last) {
    return guarded(engine, [&] { return engine->open_trace(path, first, last), 0; });
}

void bitsmith_forget(Engine* engine) {
    engine->planes.records.clear();
    engine->bytes.records.clear();
    engine->issues.clear();
}

void bitsmith_watch(Engine* engine) {
    bitsmith_forget(engine);
    engine->watching = true;
    engine->logits_seen = 0;
    engine->watched_from = engine->now;
}

uint64_t bitsmith_cycles(const Engine* engine) { return engine->now; }

uint64_t bitsmith_logits_seen(const Engine* engine) { return engine->logits_seen; }

void bitsmith_fail(Engine* engine, uint64_t start, uint64_t stop, int response) {
    engine->memory.bad_ranges.push_back({start, stop, response});
}

void bitsmith_heal(Engine* engine) { engine->memory.bad_ranges.clear(); }

// Records since the last bitsmith_forget or bitsmith_watch. kind 0: plane writes, 1: byte writes, 2: first issues (cycle, layer).
const void* bitsmith_records(const Engine* engine, int kind, uint64_t* count, uint64_t* record_bytes) {
    if (kind == 2) {
        *count = engine->issues.size();
        *record_bytes = sizeof(Issue);
        return engine->issues.data();
    }
    const Recorder& recorder = kind == 0 ? engine->planes : engine->bytes;
    *record_bytes = recorder.record_bytes;
    *count = recorder.records.size() / recorder.record_bytes;
    return recorder.records.data();
}

}  // extern "C"
