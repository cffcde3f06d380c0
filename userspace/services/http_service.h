// HTTP/1.1 (RFC 9110, RFC 9112) for two pages: /metrics, which the control thread writes (PageSource),
// and /healthz, which says ok as long as this worker turns.
//
// GET and HEAD; connections are kept, and requests may be sent ahead of answers (pipelined): they are
// read when the answer before has been sent, so a client that does not read its answers is not read
// from. A request must be complete `idle_timeout` after the answer before it, however slowly its bytes
// come, and an answer must have been sent as long after its request, however slowly they go. At the limit
// of connections the one that has been without a request longest makes room (kEvicted); when each has
// one, that whose client has held up its request or its answer longest, five seconds at least. So neither
// idle nor slow ones keep checks of this machine out. Before it closes, the service says so and reads on
// for a while, since a reset could overtake the answer (RFC 9112 section 9.6). There is no Date, for want
// of a clock (RFC 9110 section 6.6.1).
//
// Thread: the worker's. Connections come from a slab, pages are shared, nothing else is allocated.
#ifndef SLUICE_SERVICES_HTTP_SERVICE_H_
#define SLUICE_SERVICES_HTTP_SERVICE_H_

#include <memory>
#include <string>
#include <string_view>

#include "services/service.h"

namespace sluice::services {

class HttpService final : public Service {
 public:
  using Service::Service;

  using Service::OnError;
  using Service::OnReadable;
  void OnAcceptable(transport::TcpListenerId listener, Nanos now) override;
  void OnReadable(transport::TcpSocket socket, Nanos now) override;
  void OnWritable(transport::TcpSocket socket, Nanos now) override;
  void OnError(transport::TcpSocket socket, transport::SocketError error, Nanos now) override;
  void OnItemTimer(uint32_t connection, Nanos now) override;
  void AbortAll(Nanos now) override;

  // The page that `c` waits for; null: there is none.
  void OnPage(HttpConnection& c, std::shared_ptr<const std::string> page, Nanos now);

 protected:
  void OnDrain(Nanos now) override;
  transport::TcpSocketOptions ListenOptions() const override { return {.no_delay = true}; }

 private:
  HttpConnection& Of(transport::TcpSocket s) {
    return context_.http[context_.item_of_tcp[s.index]];
  }
  void SetTimer(const HttpConnection& c, Nanos deadline);
  void Advance(HttpConnection& c, Nanos now);
  bool ReadRequest(HttpConnection& c, Nanos now);
  void OnRequest(HttpConnection& c, Nanos now);
  void Answer(HttpConnection& c, uint16_t status, std::shared_ptr<const std::string> page,
              Nanos now);
  bool SendAnswer(HttpConnection& c, Nanos now);
  void SayGoodbye(HttpConnection& c, Nanos now);
  void Discard(HttpConnection& c, Nanos now);
  void Finish(HttpConnection& c, bool abort, Nanos now);
  bool MakeRoom(bool of_this, Nanos now);
  uint32_t Place(Nanos now);
};

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_HTTP_SERVICE_H_
