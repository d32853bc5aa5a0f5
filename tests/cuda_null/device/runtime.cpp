// A CUDA runtime and driver that compute nothing. Memory of a device is memory of the host, copies
// copy, kernels are entered in a tally by name, and what CUDA forbids is refused and noted.
//
// There are no headers of CUDA here: handles are pointers, enumerations are ints, and of structures
// the fields that torch reads are written at their offsets in CUDA 13.
//
// Environment: NULL_GPU_DEVICES, NULL_GPU_MIB (memory of each), NULL_GPU_TALLY (a folder; each
// process leaves <pid>.json there when it ends).
#include "tally.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

using std::string;
using Handle = void*;

namespace {

enum Error { kFine = 0, kNoMemory = 2, kNotInitialized = 3, kBadShape = 9, kNoSuchDevice = 101,
             kWrongDevice = 400, kNotInCapture = 900, kCaptureLost = 901 };
enum Place { kPageable = 0, kPinned = 1, kOnDevice = 2 };  // as cudaMemoryType numbers them

struct Three { unsigned x, y, z; size_t product() const { return size_t(x) * y * z; } };
struct Block { size_t bytes; Place place; int device; };
struct Graph { std::vector<string> nodes; };
struct Mark { long launches, waits, copies, replays; };

struct World {  // never destroyed: torch's destructors call into it until the process is gone
  std::recursive_mutex lock;
  std::map<uintptr_t, Block> memory;
  std::unordered_map<const void*, string> kernels;      // entry point -> mangled name
  std::unordered_map<Handle, int> streams, events;      // -> the device they were made on
  std::map<string, long> calls;
  std::map<Handle, long> replays;                       // by stream
  std::vector<string> refusals;
  std::vector<Graph*> graphs;
  std::vector<Mark> marks;
  std::map<int, size_t> in_use, peak;                   // bytes by device
  std::set<Handle> capturing, captured_events;
  Graph* recording = nullptr;
  int capture_mode = 0, error = 0;
  unsigned long long captures = 0;
  bool lost = false;                                    // the capture under way cannot end well
  bool inherited = false;                               // forked from a process that used a device
  long handles = 0;
};
World& world() { static World* the = new World; return *the; }
struct Locked : std::lock_guard<std::recursive_mutex> { Locked() : lock_guard(world().lock) {} };

thread_local int device_now = 0, thread_mode = 0;
thread_local std::vector<std::array<size_t, 8>> configured;  // launches that <<<...>>> has begun

long setting(const char* name, long otherwise) {
  const char* text = getenv(name);
  return text && *text ? atol(text) : otherwise;
}
int devices() {
  static const int count = [] {
    const int all = (int)setting("NULL_GPU_DEVICES", 1);
    const char* visible = getenv("CUDA_VISIBLE_DEVICES");
    if (!visible) return all;
    int named = 0;
    std::stringstream list(visible);
    for (string one; std::getline(list, one, ',');) named += !one.empty() && one[0] != '-';
    return named < all ? named : all;
  }();
  return count;
}
size_t capacity() { static const size_t bytes = size_t(setting("NULL_GPU_MIB", 80 * 1024)) << 20; return bytes; }

int refuse(Error error, const string& why) {
  Locked here;
  world().refusals.push_back(why);
  if (!world().capturing.empty()) world().lost = true;
  return world().error = error;
}
// Waiting, allocating and asking are forbidden while anything is captured, but to relaxed threads.
int only_outside_capture(const char* call) {
  Locked here;
  constexpr int relaxed = 2;
  const bool free = world().capturing.empty() || thread_mode == relaxed || world().capture_mode == relaxed;
  return free ? kFine : refuse(kNotInCapture, string(call) + " during a capture");
}
int at_home(const std::unordered_map<Handle, int>& homes, Handle handle, int device, const char* kind) {
  const auto found = homes.find(handle);
  if (found == homes.end() || found->second == device) return kFine;
  return refuse(kWrongDevice, string(kind) + " of cuda:" + std::to_string(found->second) + " used on cuda:" + std::to_string(device));
}
Handle new_handle() { return (Handle)uintptr_t(0x5000000 + 64 * ++world().handles); }

Block* block_of(const void* address) {
  auto after = world().memory.upper_bound((uintptr_t)address);
  if (after == world().memory.begin()) return nullptr;
  --after;
  return (uintptr_t)address < after->first + after->second.bytes ? &after->second : nullptr;
}
Place place_of(const void* address) { Locked here; const Block* b = block_of(address); return b ? b->place : kPageable; }

int allocate(void** out, size_t bytes, Place place) {
  Locked here;
  World& w = world();
  *out = nullptr;
  bytes = bytes ? (bytes + 4095) & ~size_t(4095) : 4096;
  if (place == kOnDevice && w.inherited) return refuse(kNotInitialized, "allocation in a forked child");
  if (place == kOnDevice && w.in_use[device_now] + bytes > capacity()) return w.error = kNoMemory;
  void* got = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (got == MAP_FAILED) return w.error = kNoMemory;
  w.memory[(uintptr_t)got] = {bytes, place, device_now};
  if (place == kOnDevice) {
    const size_t now = w.in_use[device_now] += bytes;
    if (now > w.peak[device_now]) w.peak[device_now] = now;
  }
  *out = got;
  return kFine;
}
int release(void* address) {
  Locked here;
  const auto found = world().memory.find((uintptr_t)address);
  if (found == world().memory.end()) return kFine;
  if (found->second.place == kOnDevice) world().in_use[found->second.device] -= found->second.bytes;
  munmap(address, found->second.bytes);
  world().memory.erase(found);
  return kFine;
}

int launch(const void* kernel, Three grid, Three block, Handle stream) {
  Locked here;
  const auto found = world().kernels.find(kernel);
  const string name = found == world().kernels.end() ? "unknown" : found->second;
  if (world().inherited) return refuse(kNotInitialized, "launch in a forked child: " + name);
  if (!grid.product() || !block.product() || block.product() > 1024 || grid.y > 65535 || grid.z > 65535)
    return refuse(kBadShape, "impossible grid or block of " + name);
  if (const int error = at_home(world().streams, stream, device_now, "stream")) return error;
  enter("kernel " + name, stream);
  return kFine;
}
string way(const void* to, const void* from) {
  const Place t = place_of(to), f = place_of(from);
  if (t == kOnDevice && f == kOnDevice) return "D2D";
  if (t == kOnDevice) return f == kPinned ? "H2D pinned" : "H2D pageable";
  if (f == kOnDevice) return t == kPinned ? "D2H pinned" : "D2H pageable";
  return "H2H";
}

bool starts(const string& text, const char* with) { return text.rfind(with, 0) == 0; }
Mark totals() {
  Mark sum{};
  for (const auto& [what, n] : world().calls) {
    const bool moved = starts(what, "copy H2D") || starts(what, "copy D2H") || starts(what, "wait copy");
    if (moved) sum.copies += n;
    if (starts(what, "kernel ") || starts(what, "library ") || what == "fill" || what == "copy D2D") sum.launches += n;
    if (starts(what, "wait ")) sum.waits += n;
    if (what == "replay") sum.replays += n;
  }
  return sum;
}
void put(std::ostream& out, const string& text) { out << '"' << text << '"'; }  // names hold no quotes
string as_json() {
  Locked here;
  World& w = world();
  std::ostringstream out;
  const char* comma = "";
  out << "{\"calls\": {";
  for (const auto& [what, n] : w.calls) { out << comma; put(out, what); out << ": " << n; comma = ", "; }
  out << "}, \"refusals\": ["; comma = "";
  for (const auto& why : w.refusals) { out << comma; put(out, why); comma = ", "; }
  out << "], \"graphs\": ["; comma = "";
  for (const Graph* graph : w.graphs) {
    out << comma << '['; comma = "";
    for (const auto& node : graph->nodes) { out << comma; put(out, node); comma = ", "; }
    out << ']'; comma = ", ";
  }
  out << "], \"replays_by_stream\": ["; comma = "";
  for (const auto& [stream, n] : w.replays) { out << comma << n; comma = ", "; }
  out << "], \"marks\": ["; comma = "";
  for (const Mark& m : w.marks) {
    out << comma << '[' << m.launches << ", " << m.waits << ", " << m.copies << ", " << m.replays << ']';
    comma = ", ";
  }
  out << "], \"peak_bytes\": {"; comma = "";
  for (const auto& [device, bytes] : w.peak) { out << comma << '"' << device << "\": " << bytes; comma = ", "; }
  out << "}}";
  return out.str();
}
void forget() {
  Locked here;
  World& w = world();
  w.calls.clear(); w.replays.clear(); w.refusals.clear(); w.graphs.clear(); w.marks.clear();
  w.peak = w.in_use;
}

pid_t counted = 0;  // whose tally it is: a child between vfork and exec shares this memory
void leave_tally() {
  const char* folder = getenv("NULL_GPU_TALLY");
  if (!folder || !*folder || counted != getpid()) return;
  counted = 0;
  if (world().calls.empty() && world().refusals.empty()) return;
  const string path = string(folder) + "/" + std::to_string(getpid()) + ".json";
  if (FILE* file = fopen(path.c_str(), "w")) { fputs(as_json().c_str(), file); fclose(file); }
}
__attribute__((constructor)) void begin() {
  counted = getpid();
  pthread_atfork([] { world().lock.lock(); }, [] { world().lock.unlock(); }, [] {
    new (&world().lock) std::recursive_mutex;
    counted = getpid();
    world().inherited = !world().memory.empty();
    forget();
  });
}
__attribute__((destructor)) void finish() { leave_tally(); }

}  // namespace

void enter(const string& what, Handle stream) {
  Locked here;
  if (world().recording && world().capturing.count(stream)) world().recording->nodes.push_back(what);
  else world().calls[what]++;
}

#define API extern "C" __attribute__((visibility("default")))

// --- for Python
API void null_gpu_enter(const char* what, Handle stream) { enter(what, stream); }
API void null_gpu_mark() { Locked here; if (world().marks.size() < 200000) world().marks.push_back(totals()); }
API void null_gpu_forget() { forget(); }
API const char* null_gpu_tally() { static string text; text = as_json(); return text.c_str(); }
API void _exit(int code) { leave_tally(); syscall(SYS_exit_group, code); __builtin_unreachable(); }

// --- kernels
API void** __cudaRegisterFatBinary(void*) { static void* none[2]; return none; }
API void __cudaRegisterFatBinaryEnd(void**) {}
API void __cudaUnregisterFatBinary(void**) {}
API char __cudaInitModule(void**) { return 1; }
API void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
API void __cudaRegisterFunction(void**, const char* entry, char*, const char* name, int, void*, void*, void*, void*, int*) {
  Locked here;
  world().kernels[entry] = name;
}
API unsigned __cudaPushCallConfiguration(Three g, Three b, size_t shared, Handle stream) {
  configured.push_back({g.x, g.y, g.z, b.x, b.y, b.z, shared, (size_t)stream});
  return 0;
}
API int __cudaPopCallConfiguration(Three* g, Three* b, size_t* shared, Handle* stream) {
  const auto c = configured.back();
  configured.pop_back();
  *g = {(unsigned)c[0], (unsigned)c[1], (unsigned)c[2]};
  *b = {(unsigned)c[3], (unsigned)c[4], (unsigned)c[5]};
  *shared = c[6];
  *stream = (Handle)c[7];
  return kFine;
}
API int __cudaGetKernel(const void** kernel, const void* entry) { *kernel = entry; return kFine; }
API int __cudaLaunchKernel(const void* k, Three g, Three b, void**, size_t, Handle s) { return launch(k, g, b, s); }
API int cudaLaunchKernel(const void* k, Three g, Three b, void**, size_t, Handle s) { return launch(k, g, b, s); }
struct Configuration { Three grid, block; size_t shared; Handle stream; void* attributes; unsigned count; };
API int cudaLaunchKernelExC(const Configuration* c, const void* k, void**) { return launch(k, c->grid, c->block, c->stream); }
API int cudaLaunchHostFunc(Handle stream, void (*function)(void*), void* data) {
  bool now;
  { Locked here; now = !world().capturing.count(stream); }
  enter("host function", stream);
  if (now) function(data);
  return kFine;
}
API int cudaFuncGetAttributes(void* out, const void*) {
  int* fields = (int*)memset(out, 0, 144);
  fields[6] = 1024; fields[7] = 32;               // threads of a block, registers
  fields[8] = fields[9] = 90; fields[11] = 232448;  // versions, dynamic shared memory
  return kFine;
}
API int cudaFuncSetAttribute(const void*, int, int) { return kFine; }
API int cudaKernelSetAttributeForDevice(void*, int, int, int) { return kFine; }
API int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* n, const void*, int, size_t, unsigned) { *n = 8; return kFine; }
API int cudaLibraryLoadData(Handle* library, const void*, void*, void**, unsigned, void*, void**, unsigned) { *library = (Handle)8; return kFine; }
API int cudaLibraryGetKernel(Handle* kernel, Handle, const char* name) {
  Locked here;
  *kernel = strdup(name);
  world().kernels[*kernel] = name;
  return kFine;
}
API int cudaLibraryUnload(Handle) { return kFine; }
API int cudaGetSymbolAddress(void** address, const void* symbol) { *address = (void*)symbol; return kFine; }

// --- devices
API int cudaGetDeviceCount(int* n) { *n = devices(); return kFine; }
API int cudaGetDevice(int* n) { *n = device_now; return kFine; }
API int cudaSetDevice(int n) {
  if (n >= 0 && n < devices()) { device_now = n; return kFine; }
  Locked here;
  return world().error = kNoSuchDevice;
}
API int cudaDriverGetVersion(int* v) { *v = NULL_GPU_CUDA; return kFine; }
API int cudaRuntimeGetVersion(int* v) { *v = NULL_GPU_CUDA; return kFine; }
API int cudaDeviceGetPCIBusId(char* text, int n, int device) { snprintf(text, n, "0000:%02x:00.0", 16 + device); return kFine; }
API int cudaDeviceGetStreamPriorityRange(int* least, int* greatest) { *least = 0; *greatest = -5; return kFine; }
API int cudaDeviceCanAccessPeer(int* can, int, int) { *can = 0; return kFine; }
API int cudaDeviceEnablePeerAccess(int, unsigned) { return kFine; }
API int cudaDeviceGetAttribute(int* value, int attribute, int) {
  static const std::map<int, int> known = {  // of an H200, by cudaDeviceAttr
      {1, 1024}, {5, 0x7fffffff}, {6, 65535}, {7, 65535}, {8, 49152}, {10, 32}, {12, 65536},
      {16, 132}, {39, 2048}, {75, 9}, {76, 0}, {97, 232448}};
  const auto found = known.find(attribute);
  *value = found == known.end() ? 1 : found->second;
  return kFine;
}
API int cudaGetDeviceProperties(void* out, int device) {
  char* base = (char*)memset(out, 0, 1008);
  strcpy(base, "null GPU");
  base[256] = (char)(device + 1);  // the UUID tells devices apart
  struct Field { int at; size_t width, value; };
  const Field fields[] = {
      {288, 8, capacity()},                                                // memory
      {296, 8, 49152}, {304, 4, 65536}, {308, 4, 32}, {312, 8, 0x7fffffff},  // block: shared, registers; warp; pitch
      {320, 4, 1024}, {324, 4, 1024}, {328, 4, 1024}, {332, 4, 64},          // threads of a block, its shape
      {336, 4, 0x7fffffff}, {340, 4, 65535}, {344, 4, 65535},                // shape of a grid
      {352, 8, 65536}, {360, 4, 9}, {364, 4, 0}, {368, 8, 512}, {376, 8, 32},  // constants, capability, textures
      {384, 4, 132}, {392, 4, 1}, {560, 4, 1}, {584, 4, 3}, {588, 4, 1},       // multiprocessors, concurrency
      {596, 4, 60u << 20}, {604, 4, 2048}, {608, 4, 1}, {624, 8, 233472}, {632, 4, 65536},  // L2; of a multiprocessor
      {636, 4, 1}, {668, 4, 1}, {672, 8, 232448}, {688, 4, 32}, {704, 4, 1}, {720, 4, 1}};
  for (const Field& field : fields) memcpy(base + field.at, &field.value, field.width);
  return kFine;
}
API int cudaDeviceSynchronize() {
  if (const int error = only_outside_capture("cudaDeviceSynchronize")) return error;
  enter("wait device");
  return kFine;
}
API int cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  Locked here;
  *total = capacity();
  *free_bytes = capacity() - world().in_use[device_now];
  return kFine;
}
API int cudaProfilerStart() { return kFine; }
API int cudaProfilerStop() { return kFine; }

// --- errors
struct Words { int error; const char *name, *text; };
static const Words& words_of(int error) {
  static const Words known[] = {
      {kFine, "cudaSuccess", "no error"},
      {kNoMemory, "cudaErrorMemoryAllocation", "out of memory"},
      {kNotInitialized, "cudaErrorInitializationError", "initialization error"},
      {kBadShape, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
      {kNoSuchDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
      {kWrongDevice, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
      {kNotInCapture, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
      {kCaptureLost, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"}};
  static const Words other = {-1, "cudaErrorUnknown", "unknown error of the null GPU"};
  for (const Words& one : known) if (one.error == error) return one;
  return other;
}
API const char* cudaGetErrorString(int error) { return words_of(error).text; }
API const char* cudaGetErrorName(int error) { return words_of(error).name; }
API int cudaPeekAtLastError() { Locked here; return world().error; }
API int cudaGetLastError() { Locked here; const int last = world().error; world().error = kFine; return last; }

// --- memory
#define REFUSED_IN_CAPTURE(call) if (const int error = only_outside_capture(call)) return error
API int cudaMalloc(void** p, size_t n) { REFUSED_IN_CAPTURE("cudaMalloc"); enter("malloc"); return allocate(p, n, kOnDevice); }
API int cudaMallocAsync(void** p, size_t n, Handle) { enter("malloc"); return allocate(p, n, kOnDevice); }
API int cudaFree(void* p) { REFUSED_IN_CAPTURE("cudaFree"); return release(p); }
API int cudaFreeAsync(void* p, Handle) { return release(p); }
API int cudaHostAlloc(void** p, size_t n, unsigned) { REFUSED_IN_CAPTURE("cudaHostAlloc"); enter("pin"); return allocate(p, n, kPinned); }
API int cudaFreeHost(void* p) { return release(p); }
API int cudaHostRegister(void* p, size_t n, unsigned) { Locked here; world().memory[(uintptr_t)p] = {n, kPinned, device_now}; return kFine; }
API int cudaHostUnregister(void* p) { Locked here; world().memory.erase((uintptr_t)p); return kFine; }
API int cudaPointerGetAttributes(void* out, const void* p) {
  Locked here;
  char* base = (char*)memset(out, 0, 88);
  const Block* block = block_of(p);
  const int head[2] = {block ? block->place : kPageable, block ? block->device : 0};
  const void* views[2] = {block ? p : nullptr, block && block->place == kPinned ? p : nullptr};
  memcpy(base, head, 8);
  memcpy(base + 8, views, 16);
  return kFine;
}
API int cudaMemcpyAsync(void* to, const void* from, size_t n, int, Handle s) { enter("copy " + way(to, from), s); memmove(to, from, n); return kFine; }
API int cudaMemcpy(void* to, const void* from, size_t n, int) {
  REFUSED_IN_CAPTURE("cudaMemcpy");
  enter("wait copy " + way(to, from));
  memmove(to, from, n);
  return kFine;
}
API int cudaMemcpy2DAsync(void* to, size_t tp, const void* from, size_t fp, size_t width, size_t rows, int, Handle s) {
  enter("copy " + way(to, from), s);
  for (size_t row = 0; row < rows; row++) memmove((char*)to + row * tp, (const char*)from + row * fp, width);
  return kFine;
}
API int cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t n, Handle s) { enter("copy D2D peer", s); memmove(to, from, n); return kFine; }
API int cudaMemcpyToSymbol(const void*, const void*, size_t, size_t, int) { return kFine; }
API int cudaMemset(void* p, int v, size_t n) { enter("fill"); memset(p, v, n); return kFine; }
API int cudaMemsetAsync(void* p, int v, size_t n, Handle s) { enter("fill", s); memset(p, v, n); return kFine; }

// --- streams and events
static int made(Handle* out, std::unordered_map<Handle, int> World::* kind) {
  Locked here;
  (world().*kind)[*out = new_handle()] = device_now;
  return kFine;
}
API int cudaStreamCreate(Handle* s) { return made(s, &World::streams); }
API int cudaStreamCreateWithFlags(Handle* s, unsigned) { return made(s, &World::streams); }
API int cudaStreamCreateWithPriority(Handle* s, unsigned, int) { return made(s, &World::streams); }
API int cudaStreamDestroy(Handle) { return kFine; }
API int cudaStreamGetPriority(Handle, int* priority) { *priority = 0; return kFine; }
API int cudaStreamQuery(Handle) { return only_outside_capture("cudaStreamQuery"); }
API int cudaStreamSynchronize(Handle) { REFUSED_IN_CAPTURE("cudaStreamSynchronize"); enter("wait stream"); return kFine; }
API int cudaStreamAddCallback(Handle s, void (*function)(Handle, int, void*), void* data, unsigned) { function(s, kFine, data); return kFine; }
API int cudaStreamWaitEvent(Handle s, Handle event, unsigned) {  // a stream that waits for a captured event is captured too
  Locked here;
  if (world().captured_events.count(event)) world().capturing.insert(s);
  return kFine;
}
API int cudaEventCreate(Handle* e) { return made(e, &World::events); }
API int cudaEventCreateWithFlags(Handle* e, unsigned) { return made(e, &World::events); }
API int cudaEventDestroy(Handle) { return kFine; }
API int cudaEventRecord(Handle event, Handle s) {
  Locked here;
  const auto home = world().streams.find(s);
  if (const int error = at_home(world().events, event, home == world().streams.end() ? device_now : home->second, "event")) return error;
  if (world().capturing.count(s)) world().captured_events.insert(event);
  else world().captured_events.erase(event);
  return kFine;
}
API int cudaEventRecordWithFlags(Handle event, Handle s, unsigned) { return cudaEventRecord(event, s); }
API int cudaEventQuery(Handle) { return only_outside_capture("cudaEventQuery"); }
API int cudaEventSynchronize(Handle) { REFUSED_IN_CAPTURE("cudaEventSynchronize"); enter("wait event"); return kFine; }
API int cudaEventElapsedTime(float* ms, Handle, Handle) { *ms = 1; return kFine; }

// --- graphs: one that was instantiated is the captured one itself
API int cudaThreadExchangeStreamCaptureMode(int* mode) { std::swap(*mode, thread_mode); return kFine; }
API int cudaStreamBeginCapture(Handle s, int mode) {
  Locked here;
  World& w = world();
  if (!s) return refuse(kNotInCapture, "capture of the default stream");
  if (const int error = at_home(w.streams, s, device_now, "stream")) return error;
  if (w.recording) return refuse(kNotInCapture, "a second capture at a time");
  w.recording = new Graph;
  w.capturing = {s};
  w.capture_mode = mode;
  w.lost = false;
  w.captures++;
  return kFine;
}
API int cudaStreamBeginCaptureToGraph(Handle s, Handle, const void*, const void*, size_t, int mode) { return cudaStreamBeginCapture(s, mode); }
API int cudaStreamEndCapture(Handle, Handle* graph) {
  Locked here;
  World& w = world();
  *graph = w.lost ? nullptr : w.recording;
  if (!w.lost && w.recording) w.graphs.push_back(w.recording);
  w.recording = nullptr;
  w.capturing.clear();
  w.captured_events.clear();
  return *graph ? kFine : w.error = kCaptureLost;
}
API int cudaStreamIsCapturing(Handle s, int* status) {
  Locked here;
  *status = !world().capturing.count(s) ? 0 : world().lost ? 2 : 1;
  return kFine;
}
API int cudaStreamGetCaptureInfo(Handle s, int* status, unsigned long long* id, Handle* graph, const void** nodes, const void** edges, size_t* n) {
  Locked here;
  cudaStreamIsCapturing(s, status);
  if (id) *id = world().captures;
  if (graph) *graph = world().recording;
  if (nodes) *nodes = nullptr;
  if (edges) *edges = nullptr;
  if (n) *n = 0;
  return kFine;
}
API int cudaStreamUpdateCaptureDependencies(Handle, void*, const void*, size_t, unsigned) { return kFine; }
API int cudaGraphInstantiateWithFlags(Handle* exec, Handle graph, unsigned long long) { *exec = graph; return kFine; }
API int cudaGraphLaunch(Handle, Handle s) {
  Locked here;
  if (const int error = at_home(world().streams, s, device_now, "stream")) return error;
  enter("replay", s);
  world().replays[s]++;
  null_gpu_mark();
  return kFine;
}
API int cudaGraphDestroy(Handle) { return kFine; }
API int cudaGraphExecDestroy(Handle) { return kFine; }
API int cudaGraphGetNodes(Handle graph, void*, size_t* n) { *n = ((Graph*)graph)->nodes.size(); return kFine; }
API int cudaGraphNodeGetDependencies(Handle, void*, void*, size_t* n) { *n = 0; return kFine; }
API int cudaGraphRetainUserObject(Handle, Handle, unsigned, unsigned) { return kFine; }
API int cudaUserObjectCreate(Handle* object, void*, void*, unsigned, unsigned) { *object = (Handle)16; return kFine; }
API int cudaUserObjectRelease(Handle, unsigned) { return kFine; }

// --- the driver
API int cuCtxGetCurrent(Handle* context) { *context = (Handle)24; return kFine; }
API int cuDeviceGet(int* device, int n) { *device = n; return kFine; }
API int cuDeviceGetAttribute(int* value, int attribute, int device) { return cudaDeviceGetAttribute(value, attribute, device); }
API int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) { if (flags) *flags = 0; *active = 1; return kFine; }
API int cuGetErrorString(int, const char** text) { *text = "error of the null driver"; return kFine; }
API int cuModuleGetFunction(Handle* f, Handle, const char* name) { return cudaLibraryGetKernel(f, nullptr, name); }
API int cuModuleLoad(Handle* module, const char*) { *module = (Handle)32; return kFine; }
API int cuModuleLoadData(Handle* module, const void*) { *module = (Handle)32; return kFine; }
API int cuModuleLoadDataEx(Handle* module, const void*, unsigned, int*, void**) { *module = (Handle)32; return kFine; }
API int cuLaunchKernel(Handle k, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned f, unsigned, Handle s, void**, void**) { return launch(k, {a, b, c}, {d, e, f}, s); }
API int cuLaunchCooperativeKernel(Handle k, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned f, unsigned, Handle s, void**) { return launch(k, {a, b, c}, {d, e, f}, s); }
API int cuFuncGetAttribute(int* value, int, Handle) { *value = 1024; return kFine; }
API int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, Handle, int, size_t) { *n = 8; return kFine; }
API int cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long, int* status) {
  static const std::map<string, void*> answered = {
      {"cuCtxGetCurrent", (void*)cuCtxGetCurrent}, {"cuDeviceGet", (void*)cuDeviceGet},
      {"cuDeviceGetAttribute", (void*)cuDeviceGetAttribute}, {"cuGetErrorString", (void*)cuGetErrorString},
      {"cuDevicePrimaryCtxGetState", (void*)cuDevicePrimaryCtxGetState}};
  const auto found = answered.find(name);
  *function = found != answered.end() ? found->second : (void*)+[] { return 0; };
  if (status) *status = 0;
  return kFine;
}
