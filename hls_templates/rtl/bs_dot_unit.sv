/// One cell of the array: AND, population count and accumulation of D_K bit pairs per cycle.
/// acc = 2*acc + count where shift_i is set (Horner, most significant plane pair first), acc + count otherwise;
/// negative_i subtracts. The controls run two cycles behind the data: partial counts, then their sum, are registered.
module bs_dot_unit #(
    parameter int D_K      = 144,  // bit pairs per cycle, 8..512
    parameter int PARTS    = 3,    // partial counts, 1..8; divides D_K
    parameter int ACC_BITS = 28    // accumulator width in bits, 12..32
) (
    input  logic                clk,
    input  logic [D_K-1:0]      weight_i,
    input  logic [D_K-1:0]      column_i,
    input  logic                valid_i,     // two cycles after the data
    input  logic                clear_i,
    input  logic                shift_i,
    input  logic                negative_i,
    output logic [ACC_BITS-1:0] acc_o
);
  localparam int PART = D_K / PARTS;
  localparam int PART_BITS = $clog2(PART + 1);
  localparam int COUNT_BITS = $clog2(D_K + 1);

  if (D_K % PARTS != 0) begin : gen_bad
    $error("bs_dot_unit: PARTS must divide D_K (instance %m)");
  end

  logic [PARTS-1:0][PART_BITS-1:0] part_q;
  logic [COUNT_BITS-1:0] sum, count_q;
  logic [ACC_BITS-1:0] previous, addend;

  always_comb begin
    sum = '0;
    for (int part = 0; part < PARTS; part++) sum = sum + COUNT_BITS'(part_q[part]);
  end

  assign previous = clear_i ? '0 : shift_i ? {acc_o[ACC_BITS-2:0], 1'b0} : acc_o;
  assign addend = ACC_BITS'(count_q) ^ {ACC_BITS{negative_i}};

  always_ff @(posedge clk) begin
    for (int part = 0; part < PARTS; part++) begin
      part_q[part] <= PART_BITS'($countones(weight_i[part*PART+:PART] & column_i[part*PART+:PART]));
    end
    count_q <= sum;
    if (valid_i) acc_o <= previous + addend + ACC_BITS'(negative_i);
  end
endmodule
