#version 460
// Sorts segments of 2^segmentShift elements (8 .. block), as many as fit into a workgroup: whole rows, or parts of rows that merge.comp then joins.
#include "keys.glsl"

layout(push_constant) uniform Push {
  uvec2 src;
  uvec2 dst;
#ifdef PAIRS
  Elements4 dstIds;
#endif
  uint width;
  uint rows;
  uint segmentShift;
  // Segments of a row, and workgroups.
  uint segments;
  uint groups;
  uint form;
  uint infinity;
};
#include "order.glsl"
#include "merge.glsl"

// Where element e of this workgroup's block lies in its row, and the row; false when there is none.
bool locate(uint group, uint e, out uint row, out uint at) {
  const uint segment = group * (block >> segmentShift) + (e >> segmentShift);
  row = segment / segments;
  at = ((segment - row * segments) << segmentShift) + (e & ((1u << segmentShift) - 1u));
  return row < rows && at < width;
}

void main() {
  const uint group = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
  if (group >= groups) return;
  const uint lane = gl_LocalInvocationIndex;
  uint row;
  uint at;
  for (uint k = 0; k < own; k++) {
    const uint e = k * lanes + lane;
    const bool there = locate(group, e, row, at);
    Key key = lastKey;
    if (there) key = loadKey(src, row * width + at);
    keys[spot(e)] = key;
#ifdef PAIRS
    ids[spot(e)] = at;
#endif
  }
  barrier();
  [[unroll]] for (uint k = 0; k < own; k++) {
    mine[k] = keys[spot(lane * own + k)];
#ifdef PAIRS
    myIds[k] = ids[spot(lane * own + k)];
#endif
  }
  // Odd-even transposition: neighbours change places only when they must, so equal keys keep their order.
  [[unroll]] for (uint pass = 0; pass < own; pass++) {
    [[unroll]] for (uint k = pass & 1u; k + 1u < own; k += 2u) {
      const Key x = mine[k];
      const Key y = mine[k + 1u];
      const bool swap = above(x, y);
      mine[k] = swap ? y : x;
      mine[k + 1u] = swap ? x : y;
#ifdef PAIRS
      const uint p = myIds[k];
      const uint q = myIds[k + 1u];
      myIds[k] = swap ? q : p;
      myIds[k + 1u] = swap ? p : q;
#endif
    }
  }
  putMine();
  barrier();
  for (uint run = own; run < (1u << segmentShift); run *= 2u) {
    const uint first = (lane * own) & ~(2u * run - 1u);
    mergeMine(first, run, first + run, run, lane * own - first);
    barrier();
    putMine();
    barrier();
  }
  for (uint k = 0; k < own; k++) {
    const uint e = k * lanes + lane;
    if (!locate(group, e, row, at)) continue;
    const uint to = row * width + at;
#ifdef PAIRS
    if (final == 0u) Keys(dst).at[to] = keys[spot(e)];
    dstIds.at[to] = ids[spot(e)];
#else
    if (final == 1u) storeValue(dst, to, keys[spot(e)]);
    else Keys(dst).at[to] = keys[spot(e)];
#endif
  }
}
