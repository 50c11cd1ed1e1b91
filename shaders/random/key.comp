#version 460
// A key that the host knows.
#extension GL_EXT_buffer_reference : require
layout(local_size_x = 1) in;
layout(buffer_reference, std430, buffer_reference_align = 4) writeonly buffer Key { uint at[]; };
layout(push_constant) uniform Push {
  Key key;
  uint first;
  uint second;
};
void main() {
  key.at[0] = first;
  key.at[1] = second;
}
