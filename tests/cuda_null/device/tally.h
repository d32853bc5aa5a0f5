// What the two halves of the null GPU share: the tally that every call is entered in.
#pragma once
#include <string>

// Enter one call. `stream` decides whether it is carried out now or becomes a node of a capture.
// The first word of `what` is its kind: kernel, library, fill, copy, wait, replay, stub.
void enter(const std::string& what, void* stream = nullptr);

extern "C" {
void null_gpu_enter(const char* what, void* stream);  // the same for the generated stubs, in C
void* null_gpu_library_stream(void);                  // where the libraries were told to work
}
