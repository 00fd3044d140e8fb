// Which rows of the shared buffers the stages of a region touch. The stages run side by side on the chip and one after the
// other in C simulation; that is the same only where no stage touches a row that another one writes. Tokens see to it, and C
// simulation checks it for every region of every run; in synthesis there is nothing of this.
#ifndef BS_REGION_H
#define BS_REGION_H

#include "bs_config.h"
#include "bs_isa.h"

namespace bs {

enum Shared { SHARED_PLANES, SHARED_WEIGHTS, SHARED_PARAMS };

#if !defined(__SYNTHESIS__)
// A byte for each row: a bit for each stage that reads it, and four bits further on for each that writes it.
struct RegionRows {
  uint8_t planes[Config::PLANE_DEPTH];
  uint8_t weights[Config::WEIGHT_DEPTH];
  uint8_t params[Config::PARAM_DEPTH];
};
extern RegionRows region_rows;

// Tells of a row that one stage writes while another one touches it, and ends the simulation.
void region_conflict(const char* buffer, uint32_t row);

inline void touch(Shared buffer, uint32_t stage, bool writes, uint32_t row) {
  uint8_t* const rows = buffer == SHARED_PLANES ? region_rows.planes
                        : buffer == SHARED_WEIGHTS ? region_rows.weights : region_rows.params;
  rows[row] = uint8_t(rows[row] | 1u << (writes ? stage + 4 : stage));
}

template <int DEPTH>
inline void check_rows(uint8_t (&rows)[DEPTH], const char* buffer) {
  for (uint32_t row = 0; row < uint32_t(DEPTH); row++) {
    const uint32_t writers = rows[row] >> 4, touching = writers | (rows[row] & 15);
    if (writers && (touching & (touching - 1))) region_conflict(buffer, row);
    rows[row] = 0;
  }
}

inline void end_region() {
  check_rows(region_rows.planes, "plane");
  check_rows(region_rows.weights, "weight");
  check_rows(region_rows.params, "parameter");
}
#else
inline void touch(Shared, uint32_t, bool, uint32_t) {}
inline void end_region() {}
#endif

}  // namespace bs

#endif
