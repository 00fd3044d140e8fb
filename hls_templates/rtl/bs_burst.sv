/// Length of the next burst of a run of 64-bit words: 16 beats, less before a 4 KiB boundary or where fewer words are left.
/// Combinational.
module bs_burst #(
    parameter int WORDS_BITS = 24  // bits of words_i, 6..32
) (
    input  logic [8:0]            word_addr_i,  // address within 4 KiB, in words
    input  logic [WORDS_BITS-1:0] words_i,      // left to move, at least 1
    output logic [4:0]            beats_o,
    output logic                  last_o        // the burst moves all that is left
);
  if (WORDS_BITS < 6 || WORDS_BITS > 32) begin : gen_bad
    $error("bs_burst: WORDS_BITS must lie in 6..32 (instance %m)");
  end

  logic near_end;               // among the last 16 words of the 4 KiB
  logic fits_whole, fits_rest;  // what is left fits in 16 beats; before the boundary, if near_end
  logic [5:0] reach;            // where it would end, counted from the first of those 16 words

  // Both cases at once: which one it is comes as late.
  assign near_end = &word_addr_i[8:4];
  assign fits_whole = !(words_i[4] && words_i[3:0] != '0);
  assign reach = 6'(words_i[4:0]) + 6'(word_addr_i[3:0]);
  assign fits_rest = !(reach[5] || (reach[4] && reach[3:0] != '0));
  assign last_o = words_i[WORDS_BITS-1:5] == '0 && (near_end ? fits_rest : fits_whole);
  assign beats_o = last_o ? words_i[4:0] : 5'd16 - (near_end ? {1'b0, word_addr_i[3:0]} : 5'd0);
endmodule
