// The queue between two processes of a DATAFLOW region: hls::stream in synthesis. Where Vitis is absent, a stand-in with the
// same interface that grows as needed, because C simulation runs the processes one after the other.
#ifndef BS_STREAM_H
#define BS_STREAM_H

#if defined(__SYNTHESIS__) || defined(BS_VITIS)
#include <hls_stream.h>
namespace bs {
template <typename T>
using Stream = hls::stream<T>;
}
#else
#include <deque>
namespace bs {
template <typename T>
class Stream {
 public:
  void write(const T& item) { items.push_back(item); }
  T read() {
    T item = items.front();
    items.pop_front();
    return item;
  }
  bool empty() const { return items.empty(); }

 private:
  std::deque<T> items;
};
}  // namespace bs
#endif

#endif
