// The C testbench, for g++ and for Vitis (csim, cosim): runs the kernel on a memory image, `bs_testbench FOLDER`.
// Reads memory.bin and registers.bin (32-bit words) in FOLDER and writes memory_out.bin, registers_out.bin, and what the
// kernel stored: planes.bin (row, enables, D_N words of 16 bits) and bytes.bin (row, enables, D_N x LANE_ROWS bytes).
// Exit code: 0 if the run ended with the status "done", 1 if with an error, 2 if the files are unusable, 3 if stages of a region
// got in each other's way.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "bs_config.h"
#include "bs_kernel.h"
#include "bs_memory.h"
#include "bs_state.h"

namespace {

std::vector<uint8_t> plane_records, byte_records;

void append(std::vector<uint8_t>& records, uint32_t row, uint32_t enables, const void* data, size_t size) {
  const size_t at = records.size();
  records.resize(at + 8 + size);
  std::memcpy(records.data() + at, &row, 4);
  std::memcpy(records.data() + at + 4, &enables, 4);
  std::memcpy(records.data() + at + 8, data, size);
}

bool read_file(const std::string& path, std::vector<uint8_t>& content) {
  std::FILE* const file = std::fopen(path.c_str(), "rb");
  if (!file) return false;
  std::fseek(file, 0, SEEK_END);
  content.resize(size_t(std::ftell(file)));
  std::rewind(file);
  const bool complete = std::fread(content.data(), 1, content.size(), file) == content.size();
  std::fclose(file);
  return complete;
}

bool write_file(const std::string& path, const void* content, size_t size) {
  std::FILE* const file = std::fopen(path.c_str(), "wb");
  if (!file) return false;
  const bool complete = std::fwrite(content, 1, size, file) == size;
  return std::fclose(file) == 0 && complete;
}

}  // namespace

namespace bs {

MemoryCheck memory_check;
RegionRows region_rows;

void region_conflict(const char* buffer, uint32_t row) {
  std::fprintf(stderr, "bs_testbench: two stages of a region touch %s row %u, and one of them writes it\n", buffer, unsigned(row));
  std::exit(3);
}

void trace_planes(uint32_t enables, uint32_t row, const uint16_t (&data)[C::D_N]) {
  append(plane_records, row, enables, data, sizeof data);
}

void trace_bytes(uint32_t enables, uint32_t row, const uint8_t (&data)[C::D_N][C::LANE_ROWS]) {
  append(byte_records, row, enables, data, sizeof data);
}

}  // namespace bs

int main(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : ".";
  std::vector<uint8_t> raw_memory, raw_registers;
  if (!read_file(folder + "/memory.bin", raw_memory) || !read_file(folder + "/registers.bin", raw_registers) ||
      raw_registers.size() != 4 * bs::REGISTER_WORDS) {
    std::fprintf(stderr, "bs_testbench: %s holds no memory.bin and registers.bin\n", folder.c_str());
    return 2;
  }
  std::vector<uint64_t> memory((raw_memory.size() + 7) / 8);
  if (!raw_memory.empty()) std::memcpy(memory.data(), raw_memory.data(), raw_memory.size());
  uint32_t registers[bs::REGISTER_WORDS];
  std::memcpy(registers, raw_registers.data(), sizeof registers);
  bs::memory_check.words = memory.size();
  bs_kernel(registers, memory.data(), memory.data(), memory.data());
  const bool written = write_file(folder + "/memory_out.bin", memory.data(), raw_memory.size()) &&
                       write_file(folder + "/registers_out.bin", registers, sizeof registers) &&
                       write_file(folder + "/planes.bin", plane_records.data(), plane_records.size()) &&
                       write_file(folder + "/bytes.bin", byte_records.data(), byte_records.size());
  if (!written) {
    std::fprintf(stderr, "bs_testbench: cannot write to %s\n", folder.c_str());
    return 2;
  }
  if (registers[bs::REG_ERROR] != bs::ERR_NONE) {
    std::fprintf(stderr, "bs_testbench: the engine stopped with error %u (information 0x%08x)\n",
                 unsigned(registers[bs::REG_ERROR]), unsigned(registers[bs::REG_ERROR_INFO]));
    return 1;
  }
  std::printf("bs_testbench: done, %u images\n", unsigned(registers[bs::REG_IMAGES_DONE]));
  return 0;
}
