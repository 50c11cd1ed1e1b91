#version 460
// A token that other kernels have chosen.
#extension GL_EXT_buffer_reference : require
#include "advance.glsl"
layout(local_size_x = 1) in;
layout(push_constant) uniform Push {
  I32Ptr token;
  I32Ptr state;
  I32Ptr history;
  uint historyLength;
};
void main() {
  advance(state, history, historyLength, token.at[0]);
}
