// The memory of sim/axi_memory.py, cycle for cycle and random number for random number: both paths of the simulation see
// the same latencies and pauses from the same seed. What that file documents is not repeated here.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "signal.hpp"

constexpr uint64_t WORD_BYTES = 8;
constexpr uint64_t MAX_BURST_BEATS = 16;
constexpr uint64_t BOUNDARY_BYTES = 4096;
constexpr int OKAY = 0, DECERR = 3;

// Python's random.Random, continued from its state: 624 words and the position.
class PythonRandom {
 public:
    explicit PythonRandom(const uint32_t* state) {
        for (int i = 0; i < N; ++i) state_[i] = state[i];
        at_ = static_cast<int>(state[N]);
    }

    // random.random()
    double real() {
        const uint32_t high = word() >> 5, low = word() >> 6;
        return (high * 67108864.0 + low) * (1.0 / 9007199254740992.0);
    }

    // random.randint(low, high)
    uint32_t integer(uint32_t low, uint32_t high) {
        const uint32_t count = high - low + 1;
        const int bits = 32 - __builtin_clz(count);
        uint32_t value;
        do value = word() >> (32 - bits);
        while (value >= count);
        return low + value;
    }

 private:
    static constexpr int N = 624, M = 397;

    uint32_t word() {
        if (at_ >= N) {
            for (int i = 0; i < N; ++i) {
                const uint32_t y = (state_[i] & 0x80000000u) | (state_[(i + 1) % N] & 0x7fffffffu);
                state_[i] = state_[(i + M) % N] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0u);
            }
            at_ = 0;
        }
        uint32_t y = state_[at_++];
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c5680u;
        y ^= (y << 15) & 0xefc60000u;
        return y ^ (y >> 18);
    }

    std::array<uint32_t, N> state_;
    int at_;
};

struct Timing {
    uint32_t latency_low, latency_high;
    double stall;
    uint32_t outstanding;
};

class Port;

// The storage belongs to the caller; it outlives this object.
class Memory {
 public:
    // rate: beats per cycle that all ports move together; 0: no limit.
    Memory(uint8_t* storage, uint64_t size, uint64_t base, double rate, const uint32_t* random_state)
        : storage(storage), size(size), base(base), rate(rate), random(random_state) {}

    void attach(VerilatedContext& context, const std::string& prefix, const Timing& timing, Drives& drives);
    void step();

    void reset();

    int response(uint64_t address, uint64_t beats) const {
        const uint64_t stop = address + beats * WORD_BYTES;
        if (address < base || stop > base + size) return DECERR;
        for (const Bad& bad : bad_ranges)
            if (address < bad.stop && stop > bad.start) return bad.response;
        return OKAY;
    }

    bool may_move() {
        if (rate <= 0) return true;
        if (allowance_ < 1.0) return false;
        allowance_ -= 1.0;
        return true;
    }

    struct Bad {
        uint64_t start, stop;
        int response;
    };

    uint8_t* const storage;
    const uint64_t size, base;
    const double rate;
    PythonRandom random;
    uint64_t cycle = 0;
    std::vector<Bad> bad_ranges;
    std::vector<std::unique_ptr<Port>> ports;

 private:
    struct Step {
        Port* port;
        bool write;
    };
    void run(const Step& step);

    std::vector<Step> steps_;
    size_t turn_ = 0;
    double allowance_ = 0;
};

class Port {
 public:
    Port(Memory& memory, VerilatedContext& context, const std::string& prefix, const Timing& timing, Drives& drives)
        : memory_(memory), prefix_(prefix), timing_(timing), drives_(drives) {
        auto pin = [&](const char* name) { return Signal(context, "TOP", prefix + "_" + name); };
        reads = Signal::exists(context, "TOP", prefix + "_arvalid");
        writes = Signal::exists(context, "TOP", prefix + "_awvalid");
        if (reads) {
            ar_.open(pin, "ar");
            rvalid_ = pin("rvalid"), rdata_ = pin("rdata"), rresp_ = pin("rresp");
            rlast_ = pin("rlast"), rid_ = pin("rid"), rready_ = pin("rready");
        }
        if (writes) {
            aw_.open(pin, "aw");
            wvalid_ = pin("wvalid"), wready_ = pin("wready"), wdata_ = pin("wdata"), wstrb_ = pin("wstrb");
            wlast_ = pin("wlast"), bvalid_ = pin("bvalid"), bresp_ = pin("bresp"), bid_ = pin("bid");
            bready_ = pin("bready");
            has_wid_ = Signal::exists(context, "TOP", prefix + "_wid");
            if (has_wid_) wid_ = pin("wid");
        }
    }

    void step_read() {
        if (rvalid_now_ && rready_.get()) {
            if (++reads_.front().beat == reads_.front().beats) reads_.pop_front();
            rvalid_now_ = false;
            drives_.put(rvalid_, 0);
        }
        if (!rvalid_now_ && !reads_.empty() && memory_.cycle >= reads_.front().ready_cycle && !paused()
            && memory_.may_move()) {
            const Burst& burst = reads_.front();
            uint64_t word = 0;
            if (burst.response == OKAY) std::memcpy(&word, place(burst), WORD_BYTES);
            drives_.put(rdata_, word);
            drives_.put(rresp_, burst.response);
            drives_.put(rlast_, burst.beat + 1 == burst.beats);
            drives_.put(rid_, burst.ident);
            drives_.put(rvalid_, 1);
            rvalid_now_ = true;
        }
        accept(ar_, reads_);
    }

    void step_write() {
        if (wvalid_.get()) {
            const Beat beat{wdata_.get(), wstrb_.get(), wlast_.get()};
            if (beat_waits_ && !(waiting_beat_ == beat)) complain("w payload changed while valid waited for ready");
            beat_waits_ = !wready_now_;
            waiting_beat_ = beat;
            if (wready_now_) store(beat);
        } else if (beat_waits_) {
            complain("wvalid fell before wready");
        }
        if (bvalid_now_ && bready_.get()) {
            answers_.pop_front();
            bvalid_now_ = false;
            drives_.put(bvalid_, 0);
        }
        if (!bvalid_now_ && !answers_.empty() && memory_.cycle >= answers_.front().ready_cycle && !paused()) {
            drives_.put(bresp_, answers_.front().response);
            drives_.put(bid_, answers_.front().ident);
            drives_.put(bvalid_, 1);
            bvalid_now_ = true;
        }
        accept(aw_, writes_);
        const bool ready = !writes_.empty() && !paused() && memory_.may_move();
        if (ready != wready_now_) drives_.put(wready_, ready);
        wready_now_ = ready;
    }

    // Bus and memory are reset with the engine: nothing is in flight any more.
    void reset() {
        reads_.clear(), writes_.clear(), answers_.clear();
        ar_.ready_now = ar_.waits = aw_.ready_now = aw_.waits = false;
        rvalid_now_ = wready_now_ = bvalid_now_ = beat_waits_ = false;
        if (reads) drives_.put(ar_.ready, 0), drives_.put(rvalid_, 0);
        if (writes) drives_.put(aw_.ready, 0), drives_.put(wready_, 0), drives_.put(bvalid_, 0);
    }

    bool reads = false, writes = false;

 private:
    struct Burst {
        uint64_t ready_cycle, address, beats, ident;
        int response;
        uint64_t beat;
    };

    using Payload = std::array<uint64_t, 5>;  // addr, len, size, burst, id

    struct Address {
        std::string name;
        Signal valid, ready;
        std::array<Signal, 5> payload;
        bool ready_now = false, waits = false;
        Payload waiting{};

        template <typename Pin>
        void open(const Pin& pin, const std::string& channel) {
            name = channel;
            valid = pin((name + "valid").c_str()), ready = pin((name + "ready").c_str());
            const char* const fields[5] = {"addr", "len", "size", "burst", "id"};
            for (int i = 0; i < 5; ++i) payload[i] = pin((name + fields[i]).c_str());
        }
    };

    struct Beat {
        uint64_t data, strobe, last;
        bool operator==(const Beat& other) const {
            return data == other.data && strobe == other.strobe && last == other.last;
        }
    };

    [[noreturn]] void complain(const std::string& what) const {
        throw std::runtime_error("AXI port " + prefix_ + ", cycle " + std::to_string(memory_.cycle) + ": " + what);
    }

    bool paused() { return timing_.stall > 0 && memory_.random.real() < timing_.stall; }

    uint8_t* place(const Burst& burst) const {
        return memory_.storage + (burst.address + burst.beat * WORD_BYTES - memory_.base);
    }

    void accept(Address& channel, std::deque<Burst>& queue) {
        if (channel.valid.get()) {
            Payload payload;
            for (int i = 0; i < 5; ++i) payload[i] = channel.payload[i].get();
            if (channel.waits && channel.waiting != payload)
                complain(channel.name + " payload changed while valid waited for ready");
            channel.waits = !channel.ready_now;
            channel.waiting = payload;
            if (channel.ready_now) queue.push_back(burst(channel.name, payload));
        } else if (channel.waits) {
            complain(channel.name + "valid fell before " + channel.name + "ready");
        }
        const bool ready = queue.size() < timing_.outstanding && !paused();
        if (ready != channel.ready_now) drives_.put(channel.ready, ready);
        channel.ready_now = ready;
    }

    Burst burst(const std::string& name, const Payload& payload) {
        const auto [address, length, size, kind, ident] = payload;
        const uint64_t beats = length + 1;
        const auto text = [](uint64_t value) { return std::to_string(value); };
        if (beats > MAX_BURST_BEATS) complain(name + " burst of " + text(beats) + " beats; AXI3 allows 16");
        if (size != 3 || kind != 1)
            complain(name + " size " + text(size) + " burst " + text(kind) + "; expected INCR of 8-byte beats");
        if (address % WORD_BYTES) complain(name + " address " + text(address) + " is not a multiple of 8");
        if (address / BOUNDARY_BYTES != (address + beats * WORD_BYTES - 1) / BOUNDARY_BYTES)
            complain(name + " burst of " + text(beats) + " beats at " + text(address) + " crosses 4096 bytes");
        return {memory_.cycle + delay(), address, beats, ident, memory_.response(address, beats), 0};
    }

    // Reads and writes with a fixed latency differ in one respect: Python draws the latency of a write even then.
    uint64_t delay() {
        if (timing_.latency_low == timing_.latency_high) return timing_.latency_low;
        return memory_.random.integer(timing_.latency_low, timing_.latency_high);
    }

    void store(const Beat& beat) {
        if (writes_.empty()) complain("data without an address");
        Burst& burst = writes_.front();
        if (has_wid_ && wid_.get() != burst.ident)
            complain("WID " + std::to_string(wid_.get()) + " differs from AWID " + std::to_string(burst.ident));
        if (burst.response == OKAY) {
            uint8_t* const bytes = place(burst);
            for (int lane = 0; lane < 8; ++lane)
                if (beat.strobe >> lane & 1) bytes[lane] = static_cast<uint8_t>(beat.data >> (8 * lane));
        }
        ++burst.beat;
        if (beat.last != (burst.beat == burst.beats))
            complain("wlast is " + std::to_string(beat.last) + " at beat " + std::to_string(burst.beat) + " of "
                     + std::to_string(burst.beats));
        if (beat.last) {
            burst.ready_cycle = memory_.cycle + memory_.random.integer(timing_.latency_low, timing_.latency_high);
            answers_.push_back(burst);
            writes_.pop_front();
        }
    }

    Memory& memory_;
    const std::string prefix_;
    const Timing timing_;
    Drives& drives_;
    std::deque<Burst> reads_, writes_, answers_;
    Address ar_, aw_;
    Signal rvalid_, rdata_, rresp_, rlast_, rid_, rready_;
    Signal wvalid_, wready_, wdata_, wstrb_, wlast_, wid_, bvalid_, bresp_, bid_, bready_;
    bool has_wid_ = false, rvalid_now_ = false, wready_now_ = false, bvalid_now_ = false, beat_waits_ = false;
    Beat waiting_beat_{};
};

inline void Memory::attach(VerilatedContext& context, const std::string& prefix, const Timing& timing, Drives& drives) {
    ports.push_back(std::make_unique<Port>(*this, context, prefix, timing, drives));
    if (ports.back()->reads) steps_.push_back({ports.back().get(), false});
    if (ports.back()->writes) steps_.push_back({ports.back().get(), true});
}

inline void Memory::reset() {
    for (const auto& port : ports) port->reset();
}

inline void Memory::run(const Step& step) {
    if (step.write) {
        step.port->step_write();
    } else {
        step.port->step_read();
    }
}

inline void Memory::step() {
    ++cycle;
    if (rate > 0) {
        allowance_ = std::min(allowance_, 1.0) + rate;
        turn_ = (turn_ + 1) % steps_.size();
    }
    for (size_t i = 0; i < steps_.size(); ++i) run(steps_[(turn_ + i) % steps_.size()]);
}
