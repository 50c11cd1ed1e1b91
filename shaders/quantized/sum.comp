#version 460
// Sum of `parts` arrays of `count` float32 values that lie one behind the other, and with `residual` of c, which has the result's type; with EPILOGUE, finished by it.
#include "elements.glsl"
layout(constant_id = 0) const uint lanes = 128;
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint outType = 0;
#ifdef EPILOGUE
layout(constant_id = 2) const uint flags = 0;
#include "common/epilogue.glsl"
#else
layout(constant_id = 2) const bool residual = false;
#endif
layout(push_constant) uniform Push {
  F32Ptr x;
  U32Ptr y;
#ifdef EPILOGUE
  U32Ptr e0, e1, e2, e3, e4, e5;
#else
  U32Ptr c;
#endif
  uint count;
  uint parts;
#ifdef EPILOGUE
  uint columns;
#endif
};
#ifdef EPILOGUE
float operand(U32Ptr p, uint kind, uint at) {
  if (kind == NO_OPERAND) return 0;
  return fromBits(readBits(p, uint(placeIn(kind, int(at), int(at % columns))), outType), outType);
}
#endif
void main() {
  const uint i = (gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * lanes + gl_LocalInvocationIndex;
  if (i >= count) return;
  float sum = 0;
  for (uint p = 0; p < parts; p++) sum += x.at[p * count + i];
#ifdef EPILOGUE
  sum = epilogue(sum, operand(e0, KIND(0), i), operand(e1, KIND(1), i), operand(e2, KIND(2), i), operand(e3, KIND(3), i), operand(e4, KIND(4), i), operand(e5, KIND(5), i));
#else
  if (residual) sum += fromBits(readBits(c, i, outType), outType);
#endif
  writeBits(y, i, toBits(sum, outType), outType);
}
