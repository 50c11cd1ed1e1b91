// Rows of the tile kernels: row = position * group + query head within the group, for the key head of the workgroup.
struct Head {
  uint batch;
  uint first;
  // Elements where the head's keys and values begin.
  uint k;
  uint v;
};
Head headAt() {
  const uint batch = gl_WorkGroupID.y / kvHeads;
  const uint kvHead = gl_WorkGroupID.y % kvHeads;
  return Head(batch, kvHead * group, batch * kb + kvHead * kh, batch * vb + kvHead * vh);
}
uint headOf(Head h, uint row) { return h.first + row % group; }
uint queryAt(Head h, uint row) { return h.batch * qb + headOf(h, row) * qh + row / group * qt; }
uint maskRow(Head h, uint row) { return h.batch * mb + headOf(h, row) * mh + row / group * mt; }
uint outputRow(Head h, uint row) { return (h.batch * kvHeads * group + headOf(h, row)) * queries + row / group; }
int lastKeyOf(uint row, uint count) { return int(count) - int(queries) + int(row / group); }
// Keys that some row from `first` to `last` needs: a row that a causal mask leaves none takes the mean of all.
uint keysSeen(uint maskKind, uint first, uint last, uint count) {
  if (maskKind != MASK_CAUSAL || lastKeyOf(first, count) < 0) return count;
  return min(count, uint(lastKeyOf(last, count) + 1));
}
