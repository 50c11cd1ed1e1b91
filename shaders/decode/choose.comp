#version 460
// Choosing the next token. STEP 0: each workgroup finds the best of its part of the logits. STEP 1: one workgroup finds the best of those and moves the state on:
// [token, position, length, step], and history[step] = token (advance.glsl). With a temperature the scores are logits / temperature plus Gumbel noise, so that the best one is a
// draw from the softmax (Gumbel-max); its random bits are those of Threefry-2x32 (Salmon et al. 2011) with the key [seed, step].
#include "common/types.glsl"
layout(constant_id = 0) const uint lanes = 256;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const bool drawn = false;
#extension GL_KHR_shader_subgroup_arithmetic : require

#include "advance.glsl"
#if STEP == 0
layout(push_constant) uniform Push {
  RawPtr logits;
  I32Ptr state;
  // Per workgroup: bits of the best score, its index.
  U32Ptr best;
  uint n;
  float inverseTemperature;
  uint seed;
};
#else
layout(push_constant) uniform Push {
  RawPtr logits;
  U32Ptr best;
  I32Ptr state;
  I32Ptr history;
  uint parts;
  uint historyLength;
};
#endif

shared float partScore[128];
shared uint partIndex[128];
// The greater score, of equal ones the lower index.
void pick(inout float score, inout uint index, float s, uint i) {
  if (s > score || (s == score && i < index)) {
    score = s;
    index = i;
  }
}
// The best of a workgroup, in its first invocation.
void pickAll(inout float score, inout uint index) {
  const float top = subgroupMax(score);
  index = subgroupMin(score == top ? index : 0xffffffffu);
  score = top;
  if (subgroupElect()) {
    partScore[gl_SubgroupID] = score;
    partIndex[gl_SubgroupID] = index;
  }
  barrier();
  for (uint i = 0; i < gl_NumSubgroups; i++) pick(score, index, partScore[i], partIndex[i]);
}

#if STEP == 0
uvec2 threefry(uvec2 key, uvec2 c) {
  const uint rotations[8] = uint[8](13, 15, 26, 6, 17, 29, 16, 24);
  const uint ks[3] = uint[3](key.x, key.y, key.x ^ key.y ^ 0x1bd11bdau);
  c += key;
  for (uint g = 0; g < 5; g++) {
    for (uint r = 0; r < 4; r++) {
      const uint by = rotations[4 * (g & 1) + r];
      c.x += c.y;
      c.y = ((c.y << by) | (c.y >> (32 - by))) ^ c.x;
    }
    c.x += ks[(g + 1) % 3];
    c.y += ks[(g + 2) % 3] + g + 1;
  }
  return c;
}
// -log(-log(u)). Close to 1, -log(u) = 2 atanh((1 - u) / (1 + u)), because log is only good to an absolute error there.
float gumbel(uint bits) {
  const float u = min(float(bits) * 2.3283064365386963e-10, 0.99999994);
  const float z = (1.0 - u) / (1.0 + u);
  const float y = z * z;
  const float near = 2.0 * z * (1.0 + y * (1.0 / 3.0 + y * (0.2 + y * (1.0 / 7.0 + y * (1.0 / 9.0)))));
  return -log(u > 0.7 ? near : -log(u));
}
void take(inout float score, inout uint index, uint i, uint bits) {
  float s = toFloat(logits.at[i]);
  if (drawn) s = s * inverseTemperature + gumbel(bits);
  pick(score, index, s, i);
}
void main() {
  float score = -1.0 / 0.0;
  uint index = 0xffffffffu;
  const uint id = gl_WorkGroupID.x * lanes + gl_LocalInvocationID.x;
  const uint stride = gl_NumWorkGroups.x * lanes;
  if (drawn) {
    // Bits i and half + i come from one counter.
    const uint half1 = (n + 1) / 2;
    const uvec2 key = uvec2(seed, uint(state.at[3]));
    for (uint i = id; i < half1; i += stride) {
      const uint other = half1 + i;
      const uvec2 bits = threefry(key, uvec2(i, other < n ? other : 0));
      take(score, index, i, bits.x);
      if (other < n) take(score, index, other, bits.y);
    }
  } else {
    for (uint i = id; i < n; i += stride) take(score, index, i, 0);
  }
  pickAll(score, index);
  if (gl_LocalInvocationIndex == 0) {
    best.at[2 * gl_WorkGroupID.x] = floatBitsToUint(score);
    best.at[2 * gl_WorkGroupID.x + 1] = index;
  }
}
#else
void main() {
  float score = -1.0 / 0.0;
  uint index = 0xffffffffu;
  for (uint i = gl_LocalInvocationID.x; i < parts; i += lanes) pick(score, index, uintBitsToFloat(best.at[2 * i]), best.at[2 * i + 1]);
  pickAll(score, index);
  if (gl_LocalInvocationIndex == 0) {
    // As argmax: nothing is greater than a NaN in the first place.
    const int token = index == 0xffffffffu || isnan(toFloat(logits.at[0])) ? 0 : int(index);
    advance(state, history, historyLength, token);
  }
}
#endif
