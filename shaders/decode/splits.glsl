// How the positions of a sequence are divided: at most `splits` ranges of equal length, but of at least `least` positions.
uint splitLength(uint length, uint splits, uint least) { return max(least, (length + splits - 1) / splits); }
uint usedSplits(uint length, uint splits, uint least) {
  const uint each = splitLength(length, splits, least);
  return (length + each - 1) / each;
}
