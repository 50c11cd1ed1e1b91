#version 460
// Gathers, and scatters that replace: every unit goes from a place to a place, one of which index arrays name.
#include "../copy/units.glsl"
#define Source UnitPtr
#define Target UnitPtr
#include "walk.glsl"
layout(local_size_x = 256) in;
// 1: the index arrays name places of the destination.
layout(constant_id = 1) const uint scatters = 0;
// 1: the indices do not depend on the innermost dimension, which is contiguous on both sides.
layout(constant_id = 2) const uint whole = 0;

void moveRow(int s, int d) {
  const uint stride = strideOf(shift);
  // Four at a time, so that their loads are in flight together.
  for (uint c = firstOf(shift); c < inner; c += 4u * stride) {
    const uint c1 = c + stride;
    const uint c2 = c1 + stride;
    const uint c3 = c2 + stride;
    Value v0 = read(src, s + int(c));
    Value v1;
    Value v2;
    Value v3;
    if (c1 < inner) v1 = read(src, s + int(c1));
    if (c2 < inner) v2 = read(src, s + int(c2));
    if (c3 < inner) v3 = read(src, s + int(c3));
    write(dst, d + int(c), v0);
    if (c1 < inner) write(dst, d + int(c1), v1);
    if (c2 < inner) write(dst, d + int(c2), v2);
    if (c3 < inner) write(dst, d + int(c3), v3);
  }
}

void main() {
  const uint row = rowOf(shift);
  if (row >= rows) return;
  const Walk w = walkTo(row);
  if (whole == 1u) {
    const int by = movedBy(w, 0);
    moveRow(w.src + (scatters == 1u ? 0 : by), w.dst + (scatters == 1u ? by : 0));
    return;
  }
  const uint stride = strideOf(shift);
  for (uint c = firstOf(shift); c < inner; c += 2u * stride) {
    const uint c1 = c + stride;
    const int by0 = movedBy(w, int(c));
    int by1 = 0;
    if (c1 < inner) by1 = movedBy(w, int(c1));
    const int s = w.src + int(c) * srcInner;
    const int d = w.dst + int(c) * dstInner;
    const int s1 = w.src + int(c1) * srcInner;
    const int d1 = w.dst + int(c1) * dstInner;
    Value v0 = read(src, scatters == 1u ? s : s + by0);
    Value v1;
    if (c1 < inner) v1 = read(src, scatters == 1u ? s1 : s1 + by1);
    write(dst, scatters == 1u ? d + by0 : d, v0);
    if (c1 < inner) write(dst, scatters == 1u ? d1 + by1 : d1, v1);
  }
}
