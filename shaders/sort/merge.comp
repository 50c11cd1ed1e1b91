#version 460
// Merges neighbouring sorted runs of each row; a workgroup makes one block of the result.
#include "keys.glsl"

layout(push_constant) uniform Push {
  Keys src;
  uvec2 dst;
#ifdef PAIRS
  Elements4 srcIds;
  Elements4 dstIds;
#endif
  uint width;
  // Elements of a run, blocks of a row, workgroups.
  uint run;
  uint blocks;
  uint groups;
  uint form;
  uint infinity;
};
#include "order.glsl"
#include "merge.glsl"

// For the first and the last diagonal of the block: bounds of the place in the first run, and probes that say it lies beyond them.
shared uint lows[2];
shared uint highs[2];
shared uint beyond[2];

void main() {
  const uint group = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
  if (group >= groups) return;
  const uint lane = gl_LocalInvocationIndex;
  const uint row = group / blocks;
  const uint from = (group - row * blocks) * block;
  const uint first = from & ~(2u * run - 1u);
  const uint a = row * width + first;
  const uint countA = min(run, width - first);
  const uint b = a + countA;
  const uint countB = min(run, width - first - countA);
  const uint begin = from - first;
  const uint end = min(begin + block, countA + countB);

  // Half of the invocations search each diagonal, as many probes at once as there are invocations.
  const uint side = lane / (lanes / 2u);
  const uint probe = lane % (lanes / 2u);
  const uint diagonal = side == 0u ? begin : end;
  if (probe == 0u) {
    lows[side] = diagonal > countB ? diagonal - countB : 0u;
    highs[side] = min(diagonal, countA);
  }
  for (;;) {
    barrier();
    const uint low = lows[side];
    const uint high = highs[side];
    const bool found = lows[0] == highs[0] && lows[1] == highs[1];
    if (found) break;
    if (probe == 0u) beyond[side] = 0u;
    barrier();
    const uint step = (high - low + lanes / 2u - 1u) / (lanes / 2u);
    const uint at = low + probe * step;
    if (at < high && !above(src.at[a + at], src.at[b + diagonal - 1u - at])) atomicAdd(beyond[side], 1u);
    barrier();
    if (probe == 0u && low < high) {
      const uint count = beyond[side];
      highs[side] = count == 0u ? low : min(low + count * step, high);
      if (count > 0u) lows[side] = low + (count - 1u) * step + 1u;
    }
  }
  const uint beginA = lows[0];
  const uint partA = lows[1] - beginA;
  const uint beginB = begin - beginA;
  const uint total = end - begin;
  for (uint e = lane; e < total; e += lanes) {
    const uint place = e < partA ? a + beginA + e : b + beginB + (e - partA);
    keys[spot(e)] = src.at[place];
#ifdef PAIRS
    ids[spot(e)] = srcIds.at[place];
#endif
  }
  barrier();
  mergeMine(0u, partA, partA, total - partA, min(lane * own, total));
  barrier();
  putMine();
  barrier();
  for (uint e = lane; e < total; e += lanes) {
    const uint to = a + begin + e;
#ifdef PAIRS
    if (final == 0u) Keys(dst).at[to] = keys[spot(e)];
    dstIds.at[to] = ids[spot(e)];
#else
    if (final == 1u) storeValue(dst, to, keys[spot(e)]);
    else Keys(dst).at[to] = keys[spot(e)];
#endif
  }
}
