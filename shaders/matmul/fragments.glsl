// The part of a matrix-unit product that knows fragments. Before it: the constants flags .. stages of matmul/coopmat.comp, aLine and bLine (units of 16 bytes between
// rows of a tile), tileSize, the type Element, and Target with put8(target, m, n, 4 sums, 4 sums) for 8 elements of a row that may lie beyond the edges.
const uint RM = WM / FM;
const uint RN = WN / FN;
// Sums leave through shared memory, one row of fragments of each subgroup at a time, because only the hardware knows which lane holds what.
const uint stripLine = WN / 4 + 1;
const uint stripSize = (BM / WM) * (BN / WN) * FM * stripLine;
const uint sharedSize = tileSize > stripSize ? tileSize : stripSize;
shared uvec4 tiles[sharedSize];

coopmat<float, gl_ScopeSubgroup, FM, FN, gl_MatrixUseAccumulator> sums[RM * RN];

void clearSums() {
  [[unroll]] for (uint i = 0; i < RM * RN; i++) sums[i] = coopmat<float, gl_ScopeSubgroup, FM, FN, gl_MatrixUseAccumulator>(0.0);
}

// Adds the product of the tiles that begin at these places of shared memory.
void multiplyTiles(uint aAt, uint bAt) {
  const uint wm = (gl_SubgroupID / (BN / WN)) * WM;
  const uint wn = (gl_SubgroupID % (BN / WN)) * WN;
  [[unroll]] for (uint k = 0; k < BK; k += FK) {
    coopmat<Element, gl_ScopeSubgroup, FM, FK, gl_MatrixUseA> x[RM];
    [[unroll]] for (uint i = 0; i < RM; i++) {
      const uint m = wm + i * FM;
      if (aAlongK != 0) coopMatLoad(x[i], tiles, aAt + m * aLine + k / 8, aLine, gl_CooperativeMatrixLayoutRowMajor);
      else coopMatLoad(x[i], tiles, aAt + k * aLine + m / 8, aLine, gl_CooperativeMatrixLayoutColumnMajor);
    }
    [[unroll]] for (uint j = 0; j < RN; j++) {
      const uint n = wn + j * FN;
      coopmat<Element, gl_ScopeSubgroup, FK, FN, gl_MatrixUseB> y;
      if (bAlongK != 0) coopMatLoad(y, tiles, bAt + n * bLine + k / 8, bLine, gl_CooperativeMatrixLayoutColumnMajor);
      else coopMatLoad(y, tiles, bAt + k * bLine + n / 8, bLine, gl_CooperativeMatrixLayoutRowMajor);
      [[unroll]] for (uint i = 0; i < RM; i++) sums[i * RN + j] = coopMatMulAdd(x[i], y, sums[i * RN + j]);
    }
  }
}

// Hands the sums to put8. All invocations must have finished with the tiles.
void storeSums(Target target, int row, int column) {
  const int m0 = row + int((gl_SubgroupID / (BN / WN)) * WM);
  const int n0 = column + int((gl_SubgroupID % (BN / WN)) * WN);
  const uint strip = gl_SubgroupID * FM * stripLine;
  [[unroll]] for (uint i = 0; i < RM; i++) {
    [[unroll]] for (uint j = 0; j < RN; j++) coopMatStore(sums[i * RN + j], tiles, strip + j * FN / 4, stripLine, gl_CooperativeMatrixLayoutRowMajor);
    barrier();
    for (uint e = gl_SubgroupInvocationID; e < FM * WN / 8; e += gl_SubgroupSize) {
      const uint r = e / (WN / 8);
      const uint c = e % (WN / 8);
      const uint at = strip + r * stripLine + 2 * c;
      put8(target, m0 + int(i * FM + r), n0 + int(8 * c), uintBitsToFloat(tiles[at]), uintBitsToFloat(tiles[at + 1]));
    }
    barrier();
  }
}
