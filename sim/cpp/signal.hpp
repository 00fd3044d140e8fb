// Ports and public signals of a Verilated model by their hierarchical name, so that the same harness serves every engine
// shape whatever Verilator inlines. Values are little-endian bytes in the model, on a little-endian host.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "verilated.h"
#include "verilated_syms.h"

// One signal: where it lies and how wide it is.
class Signal {
 public:
    Signal() = default;

    // scope: "TOP" for ports, else the instance path; ends with an error that names the signal where there is none.
    Signal(VerilatedContext& context, const std::string& scope, const std::string& name) {
        if (!find(context, scope, name)) throw std::runtime_error("the RTL has no signal " + scope + "." + name);
    }

    static bool exists(VerilatedContext& context, const std::string& scope, const std::string& name) {
        return Signal().find(context, scope, name);
    }

    uint64_t get() const {
        switch (bytes_) {
            case 1: return *static_cast<const uint8_t*>(data_);
            case 2: return *static_cast<const uint16_t*>(data_);
            case 4: return *static_cast<const uint32_t*>(data_);
            default: return *static_cast<const uint64_t*>(data_);
        }
    }

    void set(uint64_t value) {
        switch (bytes_) {
            case 1: *static_cast<uint8_t*>(data_) = static_cast<uint8_t>(value); break;
            case 2: *static_cast<uint16_t*>(data_) = static_cast<uint16_t>(value); break;
            case 4: *static_cast<uint32_t*>(data_) = static_cast<uint32_t>(value); break;
            default: *static_cast<uint64_t*>(data_) = value;
        }
    }

    const void* data() const { return data_; }
    uint32_t width() const { return width_; }
    uint32_t bytes() const { return (width_ + 7) / 8; }

 private:
    bool find(VerilatedContext& context, const std::string& scope, const std::string& name) {
        const VerilatedScope* const place = context.scopeFind(scope.c_str());
        const VerilatedVar* const var = place ? place->varFind(name.c_str()) : nullptr;
        if (!var) return false;
        data_ = var->datap();
        width_ = var->entBits();
        bytes_ = width_ <= 8 ? 1 : width_ <= 16 ? 2 : width_ <= 32 ? 4 : 8;
        return true;
    }

    void* data_ = nullptr;
    uint32_t width_ = 0;
    uint32_t bytes_ = 0;
};

// What will be driven right after the rising edge: a register outside the model must not be seen by this edge already.
class Drives {
 public:
    void put(Signal& signal, uint64_t value) { waiting_.push_back({&signal, value}); }

    void apply() {
        for (const Drive& drive : waiting_) drive.signal->set(drive.value);
        waiting_.clear();
    }

 private:
    struct Drive {
        Signal* signal;
        uint64_t value;
    };
    std::vector<Drive> waiting_;
};
