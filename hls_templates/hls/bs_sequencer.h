// Loads a program, checks it, and decides which instructions of the three stages run together: those whose tokens are there.
#ifndef BS_SEQUENCER_H
#define BS_SEQUENCER_H

#include "bs_fetch.h"
#include "bs_state.h"

namespace bs {

constexpr uint32_t STAGES = 3;
constexpr uint32_t PROGRAM_INSTRUCTIONS = C::PROGRAM_DEPTH / INSTRUCTION_WORDS;

// How a run, or the loading of its program, ended.
struct Failure {
  uint32_t code;
  uint32_t info;
};

inline uint32_t opcode_of(const Instruction& instruction) { return instruction.word[0] & 255; }
inline uint32_t layer_of(const Instruction& instruction) { return instruction.word[0] >> 8 & 255; }
inline uint32_t info_of(uint32_t stage, const Instruction& instruction) {
  return stage << 24 | layer_of(instruction) << 16 | opcode_of(instruction);
}

inline bool stage_knows(uint32_t stage, uint32_t opcode) {
  if (stage == STAGE_FETCH) return opcode == OP_LOAD_WEIGHTS || opcode == OP_LOAD_PARAMS || opcode == OP_LOAD_IMAGE;
  if (stage == STAGE_EXECUTE) return opcode == OP_CONV;
  return opcode == OP_CONV_OUT || opcode == OP_POOL;
}

// The instructions of one stage, and the loop over images around them, a batch of images each time.
struct Queue {
  Instruction instruction[PROGRAM_INSTRUCTIONS];
  uint32_t count, loop_start, images, batch;
  uint32_t index, image;
  bool active;

  void start(uint32_t wanted) {
    images = wanted;
    index = image = 0;
    active = count != 0 && images != 0;
  }
  const Instruction& head() const { return instruction[index]; }
  bool first_batch() const { return image == 0; }
  void advance() {
    if (++index != count) return;
    index = loop_start;
    image += batch;
    if (image >= images || loop_start >= count) active = false;
  }
  // Instructions that a run takes at most: the bound of the sequencer's loop.
  uint64_t steps() const { return uint64_t(count) * (uint64_t(images) + 1); }
};

// Reads the program; the first thing that is wrong ends it.
inline Failure load_program(const uint64_t* memory, uint32_t address, Queue (&queues)[STAGES],
                            uint32_t& read_words) {
  uint64_t header[HEADER_WORDS];
  for (int word = 0; word < HEADER_WORDS; word++) {
#pragma HLS PIPELINE II=1  // one word a cycle, a burst
    header[word] = read_word(memory, address / 8 + word);
  }
  read_words += HEADER_WORDS;
  if ((header[0] & 0xffffffffffffull) != PROGRAM_START) return {ERR_PROGRAM_MAGIC, 0};
  if (uint32_t(header[1]) != C::ENGINE_HASH) return {ERR_PROGRAM_ENGINE, 0};
  uint32_t words = HEADER_WORDS + 1;
  bool too_many = false;
  for (uint32_t stage = 0; stage < STAGES; stage++) {
    queues[stage].count = header[2 + stage] & 0xffff;
    queues[stage].loop_start = header[2 + stage] >> 16 & 0xffff;
    queues[stage].batch = (header[5] & 255) == 0 ? 1 : header[5] & 255;
    too_many = too_many || queues[stage].count > PROGRAM_INSTRUCTIONS || queues[stage].loop_start > queues[stage].count;
    words += queues[stage].count * INSTRUCTION_WORDS;
  }
  if (too_many || uint32_t(header[1] >> 32) != words) return {ERR_PROGRAM_LENGTH, 0};
  read_words += words - HEADER_WORDS;
  uint32_t at = address / 8 + HEADER_WORDS;
  for (uint32_t stage = 0; stage < STAGES; stage++) {
    for (uint32_t index = 0; index < queues[stage].count; index++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=1024
      Instruction& made = queues[stage].instruction[index];
      for (int word = 0; word < INSTRUCTION_WORDS; word++) {
#pragma HLS PIPELINE II=1  // one word a cycle, a burst
        made.word[word] = read_word(memory, at + word);
      }
      at += INSTRUCTION_WORDS;
      if (!stage_knows(stage, opcode_of(made))) return {ERR_ILLEGAL_OPCODE, info_of(stage, made)};
      if (zero_count(made)) return {ERR_ADDRESS, info_of(stage, made)};
    }
  }
  if (read_word(memory, at) != PROGRAM_END) return {ERR_PROGRAM_END, 0};
  return {ERR_NONE, 0};
}

// Counts of tokens, modulo 256 as in bs_tokens.
struct Tokens {
  uint8_t count;

  bool enough(uint32_t need) const { return count >= need; }
  void take(uint32_t need) { count = uint8_t(count - need); }
  void give(bool one) { count = uint8_t(count + one); }
};

// What runs in the next region.
struct Choice {
  FetchJob fetch;
  ExecuteJob execute;
  WriteBackJob write_back;

  bool any() const { return fetch.active || execute.active || write_back.active; }
};

// Rows that go to the plane buffer in a region at most, and an end for each of the two that send them.
inline uint64_t most_rows(const Choice& choice) {
  const LoadImage load(choice.fetch.instruction);
  const ConvOut out(choice.write_back.instruction);
  const Pool pool(choice.write_back.instruction);
  const bool is_pool = opcode_of(choice.write_back.instruction) == OP_POOL;
  const uint64_t tiles = is_pool ? pool.tiles : out.tiles, row_tiles = is_pool ? pool.row_tiles : out.row_tiles;
  return 2 + 16 * (tiles * row_tiles + uint64_t(load.pixels) * load.channels);
}

struct Sequencer {
  static constexpr uint32_t LOADS = 16;  // loads that wait for their tokens at most; an image may pass them

  Queue queues[STAGES];
  Instruction loads[LOADS];
  bool load_first[LOADS];
  uint32_t load_read, load_count;
  uint32_t image_addr;                       // of the image that is loaded next
  Tokens image_ready, map_ready, weights_ready;   // for execute, from fetch, write-back, fetch
  Tokens weights_free, image_free;                // for fetch, from execute
  Tokens map_free;                                // for write-back, from execute
  uint32_t layer[STAGES];

  void start(uint32_t images, uint32_t first_image_addr) {
    for (uint32_t stage = 0; stage < STAGES; stage++) {
      queues[stage].start(images);
      layer[stage] = 0;
    }
    load_read = load_count = 0;
    image_addr = first_image_addr;
    image_ready = map_ready = weights_ready = weights_free = image_free = map_free = Tokens{0};
  }

  bool finished() const {
    return !queues[0].active && !queues[1].active && !queues[2].active && load_count == 0;
  }

  // The first stage that has not been given everything is the one that waits.
  uint32_t waiting_info() const {
    const uint32_t stage = queues[0].active ? STAGE_FETCH : queues[1].active ? STAGE_EXECUTE : STAGE_WRITE_BACK;
    return stage << 24 | layer[stage] << 16;
  }

  // Loads go to their queue whether their tokens are there or not.
  Failure queue_loads() {
    Queue& queue = queues[STAGE_FETCH];
    for (uint32_t room = 0; room < LOADS; room++) {
      if (!queue.active || opcode_of(queue.head()) == OP_LOAD_IMAGE || load_count == LOADS) break;
      if (load_beyond(queue.head())) return {ERR_ADDRESS, info_of(STAGE_FETCH, queue.head())};
      const uint32_t at = (load_read + load_count) % LOADS;
      loads[at] = queue.head();
      load_first[at] = queue.first_batch();
      load_count++;
      queue.advance();
    }
    return {ERR_NONE, 0};
  }

  FetchJob choose_fetch(uint32_t program_addr, uint32_t image_stride, bool planar) {
    FetchJob job = {};
    job.program_addr = program_addr;
    job.planar = planar;
    if (load_count != 0) {
      const Instruction& next = loads[load_read];
      // Both loads have their token fields in the same place (checked where the header is rendered).
      const LoadWeights load(next);
      const uint32_t need = load_first[load_read] ? load.wait_issue_first : load.wait_issue;
      if (weights_free.enough(need)) {
        weights_free.take(need);
        job.active = true;
        job.instruction = next;
        load_read = (load_read + 1) % LOADS;
        load_count--;
      }
    }
    Queue& queue = queues[STAGE_FETCH];
    if (!job.active && queue.active && opcode_of(queue.head()) == OP_LOAD_IMAGE) {
      const LoadImage load(queue.head());
      const uint32_t need = queue.first_batch() ? load.wait_fill_first : load.wait_fill;
      if (image_free.enough(need)) {
        image_free.take(need);
        job.active = true;
        job.instruction = queue.head();
        job.image_addr = image_addr;
        if (load.image_last) image_addr += image_stride;
        queue.advance();
      }
    }
    if (job.active) layer[STAGE_FETCH] = layer_of(job.instruction);
    return job;
  }

  // A conv_out that takes results runs with its conv; pool, and conv_out of sums, run alone.
  void choose_compute(Choice& choice) {
    Queue &execute = queues[STAGE_EXECUTE], &write_back = queues[STAGE_WRITE_BACK];
    if (!write_back.active) return;
    const Instruction& last = write_back.head();
    const ConvOut out(last);
    const Pool pool(last);
    const bool is_pool = opcode_of(last) == OP_POOL, first = write_back.first_batch();
    const uint32_t need = is_pool ? (first ? pool.wait_fill_first : pool.wait_fill)
                                  : (first ? out.wait_fill_first : out.wait_fill);
    if (!map_free.enough(need)) return;
    if (!is_pool && !out.from_sums) {
      if (!execute.active) return;
      const Conv conv(execute.head());
      const bool conv_first = execute.first_batch();
      const uint32_t need_fetch = conv_first ? conv.wait_fetch_first : conv.wait_fetch;
      const uint32_t need_map = conv_first ? conv.wait_write_back_first : conv.wait_write_back;
      const uint32_t need_weights = conv_first ? conv.wait_weights_first : conv.wait_weights;
      if (!image_ready.enough(need_fetch) || !map_ready.enough(need_map) || !weights_ready.enough(need_weights)) return;
      // What execute makes must be what write-back takes, and the words of a tile must fit the column buffer.
      if (conv.tiles != out.tiles || conv.row_tiles != out.row_tiles || conv.column_words > uint32_t(C::COLUMN_DEPTH)) return;
      image_ready.take(need_fetch);
      map_ready.take(need_map);
      weights_ready.take(need_weights);
      choice.execute.active = true;
      choice.execute.instruction = execute.head();
      layer[STAGE_EXECUTE] = layer_of(execute.head());
      execute.advance();
    }
    map_free.take(need);
    choice.write_back.active = true;
    choice.write_back.instruction = last;
    layer[STAGE_WRITE_BACK] = layer_of(last);
    write_back.advance();
  }

  // Tokens are given at the end of a region, so that no stage of it works on what another one changes.
  void give(const Choice& done) {
    if (done.fetch.active) {
      if (opcode_of(done.fetch.instruction) == OP_LOAD_IMAGE) image_ready.give(LoadImage(done.fetch.instruction).post_fill);
      else weights_ready.give(LoadWeights(done.fetch.instruction).post_issue);
    }
    if (done.execute.active) {
      const Conv conv(done.execute.instruction);
      image_free.give(conv.post_fetch);
      map_free.give(conv.post_write_back);
      weights_free.give(conv.post_weights);
    }
    if (done.write_back.active) {
      const Instruction& last = done.write_back.instruction;
      map_ready.give(opcode_of(last) == OP_POOL ? Pool(last).post_fill : ConvOut(last).post_fill);
    }
  }
};

}  // namespace bs

#endif
