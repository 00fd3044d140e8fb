/// Simple dual-port memory: one write port with one enable per chunk, one read port.
/// Read data appears two cycles after the address (memory, then output register).
/// Reading a row in the cycle in which it is written gives anything: no program uses such a word, so that synthesis need
/// not care (no_rw_check).
module bs_ram #(
    parameter int WIDTH  = 64,   // bits per row, >= 1; a multiple of CHUNKS
    parameter int DEPTH  = 512,  // rows, >= 2
    parameter int CHUNKS = 1     // parts of a row with a write enable of their own, 1..WIDTH
) (
    input  logic                     clk,
    input  logic [CHUNKS-1:0]        we_i,
    input  logic [$clog2(DEPTH)-1:0] waddr_i,
    input  logic [WIDTH-1:0]         wdata_i,
    input  logic [$clog2(DEPTH)-1:0] raddr_i,
    output logic [WIDTH-1:0]         rdata_o
);
  localparam int CHUNK = WIDTH / CHUNKS;

  if (WIDTH % CHUNKS != 0 || DEPTH < 2) begin : gen_bad
    $error("bs_ram: WIDTH must be a multiple of CHUNKS and DEPTH at least 2 (instance %m)");
  end

  (* ram_style = "block", no_rw_check *) logic [WIDTH-1:0] mem [DEPTH];
  logic [WIDTH-1:0] read_q;

  always_ff @(posedge clk) begin
    for (int chunk = 0; chunk < CHUNKS; chunk++) begin
      if (we_i[chunk]) mem[waddr_i][chunk*CHUNK+:CHUNK] <= wdata_i[chunk*CHUNK+:CHUNK];
    end
    read_q  <= mem[raddr_i];
    rdata_o <= read_q;
  end
endmodule
