// Moves a loop's state [token, position, length, step] on: history[step] = token, in a ring.
layout(buffer_reference, std430, buffer_reference_align = 4) buffer I32Ptr { int at[]; };
void advance(I32Ptr state, I32Ptr history, uint historyLength, int token) {
  const int at = state.at[3];
  state.at[0] = token;
  state.at[1]++;
  state.at[2]++;
  state.at[3] = at + 1;
  history.at[uint(at) % historyLength] = token;
}
