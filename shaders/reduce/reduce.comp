#version 460
// One pass of a reduction: n of [outer, n, inner], or one chunk of n per workgroup, whose results a further pass combines. A workgroup has `across` invocations for each
// output and lanes / across outputs (four times as many when `packed` and not `rowwise`).
#include "elements.glsl"
layout(constant_id = 0) const uint lanes = 256;
layout(constant_id = 1) const uint across = 256;
// Neighbouring invocations share an output (inner is 1), instead of having neighbouring outputs.
layout(constant_id = 2) const bool rowwise = true;
// Four elements at a time: four of a row, or four columns.
layout(constant_id = 3) const bool packed = false;
// sum 0, product 1; max 0, min 1; all 0, any 1
layout(constant_id = 4) const uint rule = 0;
layout(local_size_x_id = 0) in;

#if TO == 8
#define OutPtr Out8
#elif TO == 4
#define OutPtr Out4
#elif TO == 2
#define OutPtr Out2
#else
#define OutPtr Out1
#endif

#if defined(EXTREME) || defined(ARG)
#include "keys.glsl"
#endif
#if defined(EXTREME)
// Largest or smallest element; NaN wins.
#define Acc Key
const Acc identity = lowestKey;
Acc combine(Acc a, Acc b) { return keyLess(a, b) ? b : a; }
Acc take(Bits b, uint k) { return nanBits(b) ? highestKey : rule == 0 ? keyOf(b) : ~keyOf(b); }
#if TO == 2
#define Stored uint16_t
#elif TO == 1
#define Stored uint8_t
#else
#define Stored Bits
#endif
void give(OutPtr y, uint i, Acc a, uint divisor) { y.at[i] = Stored(bitsOf(rule == 0 || (kind == 2 && a == highestKey) ? a : ~a)); }
#elif defined(TRUTH)
// Whether all, or any, elements have one of these bits: all but the sign of floats.
layout(constant_id = 5) const uint mask = 0xffffffffu;
layout(constant_id = 6) const uint lowMask = 0xffffffffu;
#define Acc uint
const Acc identity = rule == 0 ? 1 : 0;
Acc combine(Acc a, Acc b) { return rule == 0 ? a & b : a | b; }
#if SIZE == 8
Acc take(Bits b, uint k) { return ((b.y & mask) | (b.x & lowMask)) != 0 ? 1 : 0; }
#else
Acc take(Bits b, uint k) { return (b & mask) != 0 ? 1 : 0; }
#endif
void give(OutPtr y, uint i, Acc a, uint divisor) { y.at[i] = uint8_t(a); }
#elif defined(ARG)
// Index of the largest or smallest element, the first of equals. NaN never wins, except at index 0.
struct Acc {
  Key key;
  uint at;
};
const Acc identity = Acc(lowestKey, 0xffffffffu);
Acc combine(Acc a, Acc b) { return keyLess(a.key, b.key) || (a.key == b.key && b.at < a.at) ? b : a; }
Acc take(Bits b, uint k) { return Acc(nanBits(b) ? (k == 0 ? highestKey : lowestKey) : rule == 0 ? keyOf(b) : ~keyOf(b), k); }
// Results of chunks: the words of the key, then the index.
#ifdef TO_PAIRS
void give(OutPtr y, uint i, Acc a, uint divisor) {
#if SIZE == 8
  y.at[3 * i] = a.key.x;
  y.at[3 * i + 1] = a.key.y;
  y.at[3 * i + 2] = a.at;
#else
  y.at[2 * i] = a.key;
  y.at[2 * i + 1] = a.at;
#endif
}
#else
void give(OutPtr y, uint i, Acc a, uint divisor) { y.at[i] = a.at; }
#endif
#else
#include "sum.glsl"
#endif

layout(push_constant) uniform Push {
  ElementPtr x;
  OutPtr y;
  // outer * inner
  uint outputs;
  uint n;
  uint inner;
  uint chunk;
  uint chunks;
  uint tiles;
  uint divisor;
};

shared Acc part[lanes];
const uint unit = rowwise ? 1 : lanes / across;
Acc tree(Acc a, uint lane, uint at) {
  for (uint s = across / 2; s > 0; s /= 2) {
    part[lane] = a;
    barrier();
    if (at < s) a = combine(a, part[lane + s * unit]);
    barrier();
  }
  return a;
}

Acc acc[4];
void takeAt(uint base, uint k) {
  const uint i = base + k * inner;
#if SIZE != 8
  if (packed) {
    const uvec4 v = unpack4(Element4Ptr(x).at[i >> 2]);
    [[unroll]] for (uint q = 0; q < 4; q++) acc[q] = combine(acc[q], take(v[q], rowwise ? k + q : k));
    return;
  }
#endif
#if !defined(FROM_PAIRS)
  acc[0] = combine(acc[0], take(bitsAt(x, i), k));
#elif SIZE == 8
  Out4 pairs = Out4(x);
  acc[0] = combine(acc[0], Acc(uvec2(pairs.at[3 * i], pairs.at[3 * i + 1]), pairs.at[3 * i + 2]));
#else
  Out4 pairs = Out4(x);
  acc[0] = combine(acc[0], Acc(pairs.at[2 * i], pairs.at[2 * i + 1]));
#endif
}

void main() {
  const uint group = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
  const uint tile = group / chunks;
  if (tile >= tiles) return;
  const uint part_ = group % chunks;
  const uint lane = gl_LocalInvocationIndex;
  const uint width = lanes / across;
  const uint at = rowwise ? lane % across : lane / width;
  const uint each = packed && !rowwise ? 4 : 1;
  const uint output_ = (tile * width + (rowwise ? lane / across : lane % width)) * each;
  const bool valid = output_ < outputs;
  const uint o = output_ / inner;
  const uint base = o * n * inner + output_ % inner;
  const uint step = across * (packed && rowwise ? 4 : 1);
  const uint end = valid ? min((part_ + 1) * chunk, n) : 0;
  [[unroll]] for (uint q = 0; q < 4; q++) acc[q] = identity;
  uint k = part_ * chunk + at * (packed && rowwise ? 4 : 1);
  for (; k + 3 * step < end; k += 4 * step) {
    [[unroll]] for (uint q = 0; q < 4; q++) takeAt(base, k + q * step);
  }
  for (; k < end; k += step) takeAt(base, k);
  if (packed && rowwise) acc[0] = combine(combine(acc[0], acc[1]), combine(acc[2], acc[3]));
  const uint target = (o * chunks + part_) * inner + output_ % inner;
  [[unroll]] for (uint q = 0; q < 4; q++) {
    if (q >= each) break;
    const Acc total = tree(acc[q], lane, at);
    if (at == 0 && valid) give(y, target + q, total, divisor);
  }
}
