/// Reads an instruction for write-back: the fields that conv_out and pool share, wherever they lie. Factors of the second
/// rounding stay as they are: rq_bits tells how far to shift them.
module bs_work (
    input  logic [bs_pkg::INSTRUCTION_BITS-1:0] instr_i,
    input  logic                                is_pool_i,  // instr_i is a pool, else a conv_out
    output bs_pkg::work_t                       work_o
);
  bs_pkg::conv_out_t conv_out;
  bs_pkg::pool_t pool;

  assign conv_out = instr_i;
  assign pool = instr_i;

  always_comb begin
    work_o = '0;
    work_o.is_pool = is_pool_i;
    work_o.layer = conv_out.layer;
    work_o.alone = is_pool_i || conv_out.from_sums;
    if (is_pool_i) begin
      work_o.tiles = pool.tiles;
      work_o.row_tiles = pool.row_tiles;
      work_o.start_tile = pool.start_tile;
      work_o.byte_base = pool.byte_base;
      work_o.byte_pitch = pool.byte_pitch;
      work_o.plane_base = pool.plane_base;
      work_o.beat.store_bytes = pool.store_bytes;
      work_o.beat.byte_requant = pool.byte_requant;
      work_o.beat.store_planes = pool.store_planes;
      work_o.beat.plane_pitch = pool.plane_pitch;
      work_o.beat.plane_bits = pool.plane_bits;
      work_o.beat.plane_flip = pool.plane_flip;
      work_o.beat.post = pool.post_fill;
      work_o.beat.requant = pool.requant;
      work_o.beat.rq_mul = 25'(pool.rq_mul);
      work_o.beat.rq_bias = 39'(pool.rq_bias);
      work_o.rq_bits = ~pool.rq_shift[2:0];
      work_o.beat.rq_bytes = pool.rq_shift[4:3];
      work_o.beat.rq_lo = pool.rq_lo;
      work_o.beat.rq_hi = pool.rq_hi;
    end else begin
      work_o.tiles = conv_out.tiles;
      work_o.row_tiles = conv_out.row_tiles;
      work_o.param_base = conv_out.param_base;
      work_o.skip_base = conv_out.skip_base;
      work_o.skip_pitch = conv_out.skip_pitch;
      work_o.skip_zero_groups = conv_out.skip_zero_groups;
      work_o.skip_groups = conv_out.skip_groups;
      work_o.row_position_tiles = conv_out.row_position_tiles;
      work_o.start_tile = conv_out.start_tile;
      work_o.byte_base = conv_out.byte_base;
      work_o.byte_pitch = conv_out.byte_pitch;
      work_o.plane_base = conv_out.plane_base;
      work_o.beat.bipolar = conv_out.bipolar;
      work_o.beat.logits = conv_out.logits;
      work_o.beat.logits_last = conv_out.logits_last;
      work_o.sum_group = conv_out.sum_group;
      work_o.beat.skip_signed = conv_out.skip_signed;
      work_o.beat.skip = conv_out.skip;
      work_o.beat.skip_mul = conv_out.skip_mul;
      work_o.beat.shift = conv_out.shift;
      work_o.beat.lo = conv_out.lo;
      work_o.beat.hi = conv_out.hi;
      work_o.beat.from_sums = conv_out.from_sums;
      work_o.beat.sums = conv_out.sums;
      work_o.beat.sums_signed = conv_out.sums_signed;
      work_o.beat.sums_columns = conv_out.sums_columns;
      work_o.beat.subsample = conv_out.subsample;
      work_o.beat.pooled = conv_out.pooled;
      work_o.beat.store_bytes = conv_out.store_bytes;
      work_o.beat.byte_requant = conv_out.byte_requant;
      work_o.beat.store_planes = conv_out.store_planes;
      work_o.beat.plane_pitch = conv_out.plane_pitch;
      work_o.beat.plane_bits = conv_out.plane_bits;
      work_o.beat.plane_flip = conv_out.plane_flip;
      work_o.beat.post = conv_out.post_fill;
      work_o.beat.requant = conv_out.requant;
      work_o.beat.rq_mul = 25'(conv_out.rq_mul);
      work_o.beat.rq_bias = 39'(conv_out.rq_bias);
      work_o.rq_bits = ~conv_out.rq_shift[2:0];
      work_o.beat.rq_bytes = conv_out.rq_shift[4:3];
      work_o.beat.rq_lo = conv_out.rq_lo;
      work_o.beat.rq_hi = conv_out.rq_hi;
    end
  end

  logic unused_fields;
  assign unused_fields = ^{conv_out, pool};
endmodule
