#version 460
// Puts consecutive rows at the places of the true elements of a mask. COUNT: only counts them, `block` elements to a workgroup.
#include "../copy/units.glsl"
#extension GL_KHR_shader_subgroup_arithmetic : require
layout(local_size_x = 256) in;
layout(buffer_reference, std430, buffer_reference_align = 1) readonly buffer Mask { uint8_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Counts { uint at[]; };

layout(push_constant) uniform Push {
  UnitPtr dst;
  UnitPtr values;
  Mask mask;
  Counts counts;
  uint elements;
  // Units that one element of the mask stands for, and rows of so many units.
  uint run;
  uint last;
};
const uint block = 1024;
shared uint parts[LANES];
shared uint ranks[block];

// Sum over the workgroup; all invocations take part.
uint sumOf(uint x) {
  x = subgroupAdd(x);
  barrier();
  if (subgroupElect()) parts[gl_SubgroupID] = x;
  barrier();
  x = 0;
  for (uint i = 0; i < gl_NumSubgroups; i++) x += parts[i];
  return x;
}

void main() {
  const uint group = gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x;
  const uint base = group * block;
  if (base >= elements) return;
  const uint lane = gl_LocalInvocationIndex;
  // Four neighbours for each invocation.
  uint marks = 0;
  uint own = 0;
  for (uint i = 0; i < 4u; i++) {
    const uint at = base + 4u * lane + i;
    if (at < elements && uint(mask.at[at]) != 0u) {
      marks |= 1u << i;
      own++;
    }
  }
#ifdef COUNT
  const uint all = sumOf(own);
  if (lane == 0u) counts.at[group] = all;
#else
  uint before = 0;
  for (uint g = lane; g < group; g += LANES) before += counts.at[g];
  before = sumOf(before);
  // Exclusive sums within the workgroup: subgroups first.
  uint at = subgroupExclusiveAdd(own);
  const uint all = subgroupAdd(own);
  barrier();
  if (subgroupElect()) parts[gl_SubgroupID] = all;
  barrier();
  for (uint i = 0; i < gl_SubgroupID; i++) at += parts[i];
  at += before;
  for (uint i = 0; i < 4u; i++) {
    const bool marked = (marks & (1u << i)) != 0u;
    ranks[4u * lane + i] = marked ? min(at, last) : 0xffffffffu;
    if (marked) at++;
  }
  barrier();
  const uint count = min(block, elements - base);
  for (uint i = lane; i < count * run; i += LANES) {
    const uint e = run == 1u ? i : i / run;
    const uint from = ranks[e];
    if (from != 0xffffffffu) writeUp(dst, (base + e) * run + (i - e * run), readUp(values, from * run + (i - e * run)));
  }
#endif
}
