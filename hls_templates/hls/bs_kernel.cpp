#include "bs_kernel.h"

#include "bs_execute.h"
#include "bs_fetch.h"
#include "bs_sequencer.h"
#include "bs_store.h"
#include "bs_write_back.h"

namespace bs {

constexpr uint32_t STATUS_DONE = 2, STATUS_ERROR = 4;

// Instructions of the three stages side by side, in Vitis' canonical form. What one stage sends another goes forward in a
// queue. Of a buffer that outlives the region one stage reads and one that stands after it writes, so in C simulation, where
// they run one after the other, a stage reads what the regions before have left. On the chip they run at once, which comes to
// the same because no stage reads a row that another one writes: tokens, checked before the region begins, see to that.
static void region(const FetchJob& fetch_job, const ExecuteJob& execute_job, const WriteBackJob& write_back_job, uint64_t most,
                   const uint64_t* images, const uint64_t* loads, uint64_t* logits, WeightBuffer& weights,
                   PlaneBuffer& planes, ParamBuffer& params, ByteBuffer& bytes, SumBuffer& sums, Logits& held_logits,
                   FetchDone& fetched, ExecuteDone& executed, WriteBackDone& written) {
#pragma HLS DATAFLOW  // the stages work at the same time
  RowStreams rows;
#pragma HLS STREAM variable=rows depth=4  // write-back rounds a row tile while the array makes the next ones
  Stream<Row> counts;
#pragma HLS STREAM variable=counts depth=4  // as above
  Stream<PlaneRow> made, loaded;
#pragma HLS STREAM variable=made depth=32    // write-back and fetch need not wait for each other's rows at once
#pragma HLS STREAM variable=loaded depth=32  // as above
  execute(execute_job, weights, planes, rows, counts, executed);
  write_back(write_back_job, rows, counts, params, logits, bytes, sums, held_logits, made, written);
  fetch(fetch_job, images, loads, weights, params, loaded, fetched);
  store(made, loaded, most, planes);
}

static Failure memory_failure(const Sequencer& sequencer) {
#if !defined(__SYNTHESIS__)
  if (memory_check.read_failed) return {ERR_AXI_READ, STAGE_FETCH << 24 | sequencer.layer[STAGE_FETCH] << 16};
  if (memory_check.write_failed) return {ERR_AXI_WRITE, STAGE_WRITE_BACK << 24 | sequencer.layer[STAGE_WRITE_BACK] << 16};
#else
  (void)sequencer;
#endif
  return {ERR_NONE, 0};
}

}  // namespace bs

using namespace bs;

extern "C" void bs_kernel(uint32_t registers[REGISTER_WORDS], const uint64_t* images, const uint64_t* loads,
                          uint64_t* logits) {
// ap_start and interrupt, 0x000 to 0x00f.
#pragma HLS INTERFACE s_axilite port=return bundle=control
// The register map, as a memory.
#pragma HLS INTERFACE s_axilite port=registers bundle=control offset=0x100
// Two masters, as in the RTL. Bases are registers that read 0 after reset and stay so: addresses are those of the register map.
// Bursts end after 16 beats, the most of the processing system's AXI3. The depth is that of co-simulation.
#pragma HLS INTERFACE m_axi port=images bundle=m_axi_0 offset=slave depth=MEMORY_WORDS max_read_burst_length=16 num_read_outstanding=16
#pragma HLS INTERFACE m_axi port=logits bundle=m_axi_0 offset=slave depth=MEMORY_WORDS max_write_burst_length=16 num_write_outstanding=8
#pragma HLS INTERFACE m_axi port=loads bundle=m_axi_1 offset=slave depth=MEMORY_WORDS max_read_burst_length=16 num_read_outstanding=16
#pragma HLS INTERFACE s_axilite port=images bundle=control
#pragma HLS INTERFACE s_axilite port=logits bundle=control
#pragma HLS INTERFACE s_axilite port=loads bundle=control
  static WeightBuffer weights;
#pragma HLS ARRAY_PARTITION variable=weights complete dim=2  // all rows of the array read a word each cycle
  static PlaneBuffer planes;
#pragma HLS ARRAY_PARTITION variable=planes complete dim=1  // the two copies
#pragma HLS ARRAY_PARTITION variable=planes complete dim=3  // a bank for each column, as in the RTL
#pragma HLS ARRAY_PARTITION variable=planes complete dim=4  // written a part at a time
  static ParamBuffer params;
#pragma HLS ARRAY_PARTITION variable=params cyclic factor=C::LANE_ROWS  // the channels of a beat at a time
  static ByteBuffer bytes;
#pragma HLS ARRAY_PARTITION variable=bytes complete dim=2  // a bank for each column
#pragma HLS ARRAY_RESHAPE variable=bytes complete dim=3    // the lanes of a column side by side in a word
  static SumBuffer sums;
#pragma HLS ARRAY_RESHAPE variable=sums complete dim=2  // the lanes of a beat side by side in a word
  static Logits held_logits;
  static Sequencer sequencer;

  registers[REG_STATUS] = 1;
  registers[REG_ID] = DEVICE_ID;
  registers[REG_VERSION] = DEVICE_VERSION;
  registers[REG_ENGINE] = C::ENGINE_HASH;
  const uint32_t image_count = registers[REG_IMAGE_COUNT];
  uint32_t images_done = 0, read_words = 0, written_words = 0, fill_cycles = 0, issue_cycles = 0, beats = 0;

  sequencer.start(0, 0);
  held_logits = {};
  Failure failure = load_program(images, registers[REG_PROGRAM_ADDR], sequencer.queues, read_words);
  if (memory_failure(sequencer).code != ERR_NONE) failure = memory_failure(sequencer);
  if (failure.code == ERR_NONE) sequencer.start(image_count, registers[REG_IMAGE_ADDR]);

  // Every turn but the last takes an instruction.
  const uint64_t bound = sequencer.queues[0].steps() + sequencer.queues[1].steps() + sequencer.queues[2].steps();
  for (uint64_t step = 0; step <= bound && failure.code == ERR_NONE; step++) {
#pragma HLS LOOP_TRIPCOUNT min=1 max=4096
    failure = sequencer.queue_loads();
    if (failure.code != ERR_NONE || sequencer.finished()) break;
    Choice choice = {};
    choice.fetch = sequencer.choose_fetch(registers[REG_PROGRAM_ADDR], registers[REG_IMAGE_STRIDE],
                                          registers[REG_IMAGE_PLANAR] & 1);
    sequencer.choose_compute(choice);
    choice.write_back.output_addr = registers[REG_OUTPUT_ADDR] + registers[REG_OUTPUT_STRIDE] * images_done;
    if (!choice.any()) break;
    FetchDone fetched = {};
    ExecuteDone executed = {};
    WriteBackDone written = {};
    region(choice.fetch, choice.execute, choice.write_back, most_rows(choice), images, loads, logits, weights, planes, params,
           bytes, sums, held_logits, fetched, executed, written);
    end_region();
    sequencer.give(choice);
    read_words += fetched.read_words;
    fill_cycles += executed.fill_cycles;
    issue_cycles += executed.issue_cycles;
    beats += written.beats;
    written_words += written.written_words;
    images_done += written.images;
    failure = memory_failure(sequencer);
    if (failure.code == ERR_NONE && fetched.failed) {
      failure = {ERR_ADDRESS, info_of(STAGE_FETCH, choice.fetch.instruction)};
    }
  }
  // What is left without a way on would wait for ever: the RTL's watchdog ends that, here it is known at once.
  if (failure.code == ERR_NONE && (!sequencer.finished() || images_done < image_count)) {
    failure = {ERR_WATCHDOG, sequencer.waiting_info()};
  }

  registers[REG_ERROR] = failure.code;
  registers[REG_ERROR_INFO] = failure.info;
  registers[REG_IMAGES_DONE] = images_done;
  registers[REG_READ_BEATS] = read_words;
  registers[REG_WRITE_BEATS] = written_words;
  registers[REG_FILL_CYCLES] = fill_cycles;
  registers[REG_ISSUE_CYCLES] = issue_cycles;
  registers[REG_WRITE_BACK_CYCLES] = beats;
  registers[REG_LAYER] = sequencer.layer[0] | sequencer.layer[1] << 8 | sequencer.layer[1] << 16 | sequencer.layer[2] << 24;
  registers[REG_STATUS] = failure.code == ERR_NONE ? STATUS_DONE : STATUS_ERROR;
}
