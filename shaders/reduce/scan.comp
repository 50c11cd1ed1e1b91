#version 460
// Running sums, products, maxima, minima and log-sum-exps along n of [outer, n, inner]. A workgroup has `across` invocations for each line and lanes / across lines; each takes four
// elements in a row, the partial results of invocations are scanned in shared memory (Hillis and Steele 1986), and what is so far is carried on to the next tile.
// Long lines are cut into chunks: PART first makes the total of each, and a chunk begins with those of the chunks before it.
#include "elements.glsl"
layout(constant_id = 0) const uint lanes = 256;
layout(constant_id = 1) const uint across = 256;
layout(constant_id = 2) const bool rowwise = true;
// `rowwise`, and rows can be read four elements at a time.
layout(constant_id = 3) const bool packed = false;
// sum 0, product 1, log-sum-exp 2; max 0, min 1
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

layout(push_constant) uniform Push {
  ElementPtr x;
  OutPtr y;
  // Totals of the chunks of each line.
  Out8 totals;
  // outer * inner
  uint count;
  uint n;
  uint inner;
  uint chunk;
  uint chunks;
  uint tiles;
  uint reverse;
  // Each result includes the element at its place.
  uint inclusive;
  // What an exclusive scan of extremes begins with, as bits of an element (of 64 bits high word first).
  uint start;
  uint startLow;
};

#if TO == 2
#define Stored uint16_t
#elif TO == 1
#define Stored uint8_t
#else
#define Stored Result
#endif
// Bits of a result; short ones in the low bits.
#if TO == 8
#define Result uvec2
#else
#define Result uint
#endif
#if defined(EXTREME)
#include "keys.glsl"
#define Acc Key
Acc combine(Acc a, Acc b) { return keyLess(a, b) ? b : a; }
Acc take(Bits b) { return nanBits(b) ? highestKey : rule == 0 ? keyOf(b) : ~keyOf(b); }
Result give(Acc a) { return bitsOf(rule == 0 || (kind == 2 && a == highestKey) ? a : ~a); }
#if SIZE == 8
Acc identityOf() { return take(uvec2(startLow, start)); }
uvec2 wordsOf(Acc a) { return a; }
Acc fromWords(uvec2 v) { return v; }
#else
Acc identityOf() { return take(start); }
uvec2 wordsOf(Acc a) { return uvec2(a, 0); }
Acc fromWords(uvec2 v) { return v.x; }
#endif
#elif defined(FLOATING)
layout(constant_id = 5) const uint kind = 0;
#define Acc float
// log(exp(a) + exp(b)); NaN stays, and infinities do not cancel.
float logAddExp(float a, float b) {
  if (floatIsNan(a) || floatIsNan(b)) return uintBitsToFloat(0x7fc00000u);
  const float high = max(a, b);
  const float low = min(a, b);
  if (floatBitsToUint(low) == 0xff800000u || floatBitsToUint(high) == 0x7f800000u) return high;
  const float e = exp(low - high);
  // log(1 + e), by its series where 1 + e loses e.
  return high + (e < 0.0009765625 ? e * (1.0 - e * (0.5 - e * 0.333333333)) : log(1.0 + e));
}
Acc combine(Acc a, Acc b) { return rule == 0 ? a + b : rule == 1 ? a * b : logAddExp(a, b); }
Acc identityOf() { return rule == 0 ? 0.0 : rule == 1 ? 1.0 : uintBitsToFloat(0xff800000u); }
#if SIZE == 2
Acc take(Bits b) { return halfFloat(b, kind == 1); }
Result give(Acc a) { return halfBits(a, kind == 1); }
#else
Acc take(Bits b) { return uintBitsToFloat(b); }
Result give(Acc a) { return floatBitsToUint(a); }
#endif
uvec2 wordsOf(Acc a) { return uvec2(floatBitsToUint(a), 0); }
Acc fromWords(uvec2 v) { return uintBitsToFloat(v.x); }
#elif defined(DOUBLE)
#define Acc double
Acc combine(Acc a, Acc b) { return rule == 0 ? a + b : a * b; }
Acc identityOf() { return rule == 0 ? 0.0lf : 1.0lf; }
Acc take(Bits b) { return packDouble2x32(b); }
Result give(Acc a) { return unpackDouble2x32(a); }
uvec2 wordsOf(Acc a) { return unpackDouble2x32(a); }
Acc fromWords(uvec2 v) { return packDouble2x32(v); }
#elif SIZE == 8
#define Acc uvec2
Acc combine(Acc a, Acc b) {
  uint high, low;
  if (rule == 0) {
    low = uaddCarry(a.x, b.x, high);
    return uvec2(low, a.y + b.y + high);
  }
  umulExtended(a.x, b.x, high, low);
  return uvec2(low, high + a.x * b.y + a.y * b.x);
}
Acc identityOf() { return uvec2(rule == 0 ? 0 : 1, 0); }
Acc take(Bits b) { return b; }
Result give(Acc a) { return a; }
uvec2 wordsOf(Acc a) { return a; }
Acc fromWords(uvec2 v) { return v; }
#else
// Wrapping integers: their low bytes do not depend on the sign.
#define Acc uint
Acc combine(Acc a, Acc b) { return rule == 0 ? a + b : a * b; }
Acc identityOf() { return rule == 0 ? 0 : 1; }
Acc take(Bits b) { return b; }
Result give(Acc a) { return TO == 4 ? a : a & ((1u << (8 * TO % 32)) - 1); }
uvec2 wordsOf(Acc a) { return uvec2(a, 0); }
Acc fromWords(uvec2 v) { return v.x; }
#endif

shared Acc part[lanes];
const uint unit = rowwise ? 1 : lanes / across;
Acc identity;

// Scan over the invocations of a line: `before` is what those before this one have, `all` the total.
void scanLanes(Acc own, uint lane, uint at, out Acc before, out Acc all) {
  before = identity;
  all = own;
  if (across == 1) return;
  part[lane] = own;
  barrier();
  for (uint s = 1; s < across; s *= 2) {
    Acc a = part[lane];
    if (at >= s) a = combine(part[lane - s * unit], a);
    barrier();
    part[lane] = a;
    barrier();
  }
  if (at > 0) before = part[lane - unit];
  all = part[lane + (across - 1 - at) * unit];
  barrier();
}

uint place(uint base, uint k) { return base + (reverse != 0 ? n - 1 - k : k) * inner; }
// Elements k to k + 3 of a line; behind `end` they are the identity.
void load4(uint base, uint k, uint end, out Acc v[4]) {
  [[unroll]] for (uint q = 0; q < 4; q++) v[q] = identity;
#if SIZE != 8
  if (packed) {
    if (k >= end) return;
    const uvec4 four = unpack4(Element4Ptr(x).at[place(base, reverse != 0 ? k + 3 : k) >> 2]);
    [[unroll]] for (uint q = 0; q < 4; q++) v[q] = take(four[reverse != 0 ? 3 - q : q]);
    return;
  }
#endif
  [[unroll]] for (uint q = 0; q < 4; q++) if (k + q < end) v[q] = take(bitsAt(x, place(base, k + q)));
}
void store4(uint base, uint k, uint end, Acc v[4]) {
#if SIZE != 8 && SIZE == TO
  if (packed) {
    if (k >= end) return;
    const uvec4 four = uvec4(give(v[0]), give(v[1]), give(v[2]), give(v[3]));
    Element4Ptr(y).at[place(base, reverse != 0 ? k + 3 : k) >> 2] = pack4(reverse != 0 ? four.wzyx : four);
    return;
  }
#endif
  [[unroll]] for (uint q = 0; q < 4; q++) if (k + q < end) y.at[place(base, k + q)] = Stored(give(v[q]));
}

void main() {
  const uint group = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
  const uint tile = group / chunks;
  if (tile >= tiles) return;
  identity = identityOf();
  const uint chunk_ = group % chunks;
  const uint lane = gl_LocalInvocationIndex;
  const uint width = lanes / across;
  const uint at = rowwise ? lane % across : lane / width;
  const uint line = tile * width + (rowwise ? lane / across : lane % width);
  const bool valid = line < count;
  const uint base = line / inner * n * inner + line % inner;
  const uint first = chunk_ * chunk;
  const uint end = min(first + chunk, n);
  Acc carry = identity;
#ifndef PART
  if (chunks > 1) {
    Acc some = identity;
    const uint each = (chunks + across - 1) / across;
    for (uint c = at * each; c < min((at + 1) * each, chunk_); c++) if (valid) some = combine(some, fromWords(totals.at[line * chunks + c]));
    Acc before;
    scanLanes(some, lane, at, before, carry);
  }
#endif
#ifdef PART
  Acc mine = identity;
#endif
  for (uint from = first; from < end; from += 4 * across) {
    const uint k = from + 4 * at;
    Acc v[4];
    load4(base, k, valid ? end : 0, v);
    const Acc own = combine(combine(v[0], v[1]), combine(v[2], v[3]));
#ifdef PART
    // The order does not matter for a total.
    mine = combine(mine, own);
#else
    Acc before, all;
    scanLanes(own, lane, at, before, all);
    Acc running = combine(carry, before);
    [[unroll]] for (uint q = 0; q < 4; q++) {
      const Acc next = combine(running, v[q]);
      v[q] = inclusive != 0 ? next : running;
      running = next;
    }
    store4(base, k, valid ? end : 0, v);
    carry = combine(carry, all);
#endif
  }
#ifdef PART
  Acc before;
  scanLanes(mine, lane, at, before, carry);
  if (at == 0 && valid) totals.at[line * chunks + chunk_] = wordsOf(carry);
#endif
}
