#pragma once
#include <cstdint>

// Also compiled for the host by files that see no CUDA header.
#include "moerun/host_device.h"

namespace moerun {

/// The packing of one expert's weight matrix W [rows, cols] (16-bit elements, cols = the dimension that is
/// summed over).
///
/// W is cut into blocks of 128 rows × 64 columns, the unit that the grouped GEMM loads. A block is 16 KiB in
/// one piece, so that it is one bulk copy of consecutive memory; blocks follow each other along the columns,
/// then along the rows. Inside a block, row r is 128 bytes, whose eight 16-byte chunks are permuted as the
/// tensor cores' 128-byte swizzle wants them (PTX ISA, "Shared memory matrix layout"): chunk c is at c ^ (r %
/// 8). Rows and columns are padded to whole blocks; the padding must be zero.
///
/// A gate/up matrix [2·I, hidden] interleaves its rows by eight before that: packed row 16·b + r is gate row
/// 8·b + r for r < 8 and up row 8·b + r − 8 for r ≥ 8, so that a thread that holds a gate value holds its up
/// value too.
struct PackedWeight {
  static constexpr int64_t kBlockRows = 128, kBlockCols = 64, kChunk = 8;
  static constexpr int64_t kGateUpUnit = 8;
  static constexpr int64_t kBlockElements = kBlockRows * kBlockCols;

  int64_t rows = 0, cols = 0;

  MOERUN_HOST_DEVICE constexpr int64_t row_blocks() const { return (rows + kBlockRows - 1) / kBlockRows; }
  MOERUN_HOST_DEVICE constexpr int64_t col_blocks() const { return (cols + kBlockCols - 1) / kBlockCols; }
  /// Elements of one packed matrix, padding included.
  MOERUN_HOST_DEVICE constexpr int64_t elements() const {
    return row_blocks() * col_blocks() * kBlockElements;
  }
  /// Where element (row, col) is; `row` after interleaving.
  MOERUN_HOST_DEVICE constexpr int64_t offset(int64_t row, int64_t col) const {
    const int64_t block = row / kBlockRows * col_blocks() + col / kBlockCols;
    const int64_t r = row % kBlockRows, c = col % kBlockCols;
    return block * kBlockElements + r * kBlockCols + ((c / kChunk) ^ (r % 8)) * kChunk + c % kChunk;
  }
  /// The packed row of gate row i (up = false) or up row i (up = true).
  MOERUN_HOST_DEVICE static constexpr int64_t gate_up_row(int64_t i, bool up) {
    return i / kGateUpUnit * (2 * kGateUpUnit) + (up ? kGateUpUnit : 0) + i % kGateUpUnit;
  }
};

/// What lies behind the elements of a block of Fp8PackedWeight.
struct Fp8BlockScales {
  float row[128] = {};  ///< of the block's rows
  /// Where `uniform`: the one scale of all rows r with r / 8 even, and of those with r / 8 odd (of gate and
  /// of up rows where they interleave). Blocks of 128 × 128 of a checkpoint are so.
  float even = 0, odd = 0;
  uint32_t uniform = 0, unused = 0;
};

/// The packing of one weight matrix in e4m3 (moerun/fp8.h): like PackedWeight's of blocks of 128 rows × 128
/// columns, a byte an element, with a row's 128 bytes permuted the same way; behind a block's elements are
/// its scales. Gate/up matrices of experts interleave their rows as above.
struct Fp8PackedWeight {
  static constexpr int64_t kBlockRows = 128, kBlockCols = 128, kChunk = 16;
  static constexpr int64_t kElementBytes = kBlockRows * kBlockCols;
  static constexpr int64_t kBlockBytes = kElementBytes + sizeof(Fp8BlockScales);
  static_assert(kBlockBytes % 16 == 0);

  int64_t rows = 0, cols = 0;

  MOERUN_HOST_DEVICE constexpr int64_t row_blocks() const { return (rows + kBlockRows - 1) / kBlockRows; }
  MOERUN_HOST_DEVICE constexpr int64_t col_blocks() const { return (cols + kBlockCols - 1) / kBlockCols; }
  MOERUN_HOST_DEVICE constexpr int64_t blocks() const { return row_blocks() * col_blocks(); }
  MOERUN_HOST_DEVICE constexpr int64_t bytes() const { return blocks() * kBlockBytes; }
  /// Where element (row, col) is, and the scale of its row and group; `row` after interleaving.
  MOERUN_HOST_DEVICE constexpr int64_t offset(int64_t row, int64_t col) const {
    const int64_t r = row % kBlockRows, c = col % kBlockCols;
    return block(row, col) + r * kBlockCols + ((c / kChunk) ^ (r % 8)) * kChunk + c % kChunk;
  }
  MOERUN_HOST_DEVICE constexpr int64_t scale_offset(int64_t row, int64_t col) const {
    return block(row, col) + kElementBytes + row % kBlockRows * 4;
  }

 private:
  MOERUN_HOST_DEVICE constexpr int64_t block(int64_t row, int64_t col) const {
    return (row / kBlockRows * col_blocks() + col / kBlockCols) * kBlockBytes;
  }
};

}  // namespace moerun
