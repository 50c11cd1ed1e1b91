#version 460
// Copies a row of 4-byte words into one of two places, by the parity of the step: the row itself is overwritten by the next step.
#extension GL_EXT_buffer_reference : require
layout(local_size_x = 256) in;
layout(buffer_reference, std430, buffer_reference_align = 4) buffer Words { uint at[]; };
layout(push_constant) uniform Push {
  Words row;
  Words state;
  Words kept;
  uint words;
};

void main() {
  const uint base = (state.at[3] & 1u) * words;
  for (uint i = gl_GlobalInvocationID.x; i < words; i += gl_NumWorkGroups.x * 256u) kept.at[base + i] = row.at[i];
}
