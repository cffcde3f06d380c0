// Services on a simulated link: clients and backends are programs on host 0, the services run on
// host 1. What the control thread does in the program is done here by hand.
#ifndef SLUICE_TESTS_SUPPORT_SERVICE_RIG_H_
#define SLUICE_TESTS_SUPPORT_SERVICE_RIG_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "services/service_set.h"
#include "support/transport_link.h"

namespace sluice::test {

class ServiceRig : public services::PageSource {
 public:
  using Bytes = TransportLink::Bytes;
  struct Options {
    TransportLink::Options link;
    services::ServiceLimits limits;
    uint64_t seed = 1;
  };

  ServiceRig() : ServiceRig(Options{}) {}
  explicit ServiceRig(const Options& options);

  TransportLink& link() { return link_; }
  services::ServiceSet& set() { return *set_; }
  transport::Tcp& tcp() { return link_.host(0).tcp(); }  // of clients and backends
  transport::Udp& udp() { return link_.host(0).udp(); }
  Nanos now() const { return link_.now(); }
  void Run(Nanos time) { link_.Run(time); }
  bool RunUntil(const std::function<bool()>& done, Nanos time) { return link_.RunUntil(done, time); }

  void Apply(std::vector<tables::ServiceConfig> services);
  const services::ServiceStats& stats(std::string_view service) const;
  const services::BackendStats& backend(std::string_view service, uint16_t port) const;
  uint64_t failed(std::string_view service, services::ServiceFailure f) const {
    return stats(service).failed[static_cast<size_t>(f)].Read();
  }
  const services::Service* Find(std::string_view name) const;

  // services::PageSource: kept for the test to answer.
  bool Request(uint64_t token) override {
    if (!pages_answer) return false;
    tokens.push_back(token);
    return true;
  }
  std::vector<uint64_t> tokens;
  bool pages_answer = true;

  // After all connections are over: whether nothing is left, of services and in both stacks, but what
  // is listened on and probed.
  std::string Leftovers();

  // Packets of connections between the proxy and this port of host 0 get lost from now on.
  void Vanish(uint16_t backend_port) { vanished_.push_back(backend_port); }
  void Reappear() { vanished_.clear(); }

  static tables::ServiceAddress Proxy(uint16_t port, bool v6 = false);
  static tables::ServiceAddress Backend(uint16_t port, bool v6 = false);

 private:
  TransportLink link_;
  tables::ServiceSlots slots_;
  std::unique_ptr<services::ServiceSet> set_;
  std::vector<uint16_t> vanished_;

  void Refuse(int at, const Bytes& packet);
};

inline transport::Endpoint EndpointOf(const tables::ServiceAddress& a) { return {a.address, a.port}; }
inline std::span<const uint8_t> BytesOf(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// A client of a service over TCP, which sends a text and reads what comes.
class TextClient : public transport::TcpHandler {
 public:
  TextClient(ServiceRig& rig, const tables::ServiceAddress& to, std::string text,
             bool finish = false, const transport::TcpSocketOptions& options = {});
  ~TextClient() override;

  void OnConnected(transport::TcpSocket s, Nanos now) override;
  void OnReadable(transport::TcpSocket s, Nanos now) override;
  void OnWritable(transport::TcpSocket s, Nanos now) override { Push(s, now); }
  void OnError(transport::TcpSocket s, transport::SocketError e, Nanos now) override;

  void Say(std::string_view text);
  void Finish();
  void Close();
  void Abort();

  transport::TcpSocket socket;
  std::string got;
  bool connected = false;
  bool ended = false;   // the peer has finished
  bool closed = false;  // so have we, or there was an error
  bool reading = true;
  transport::SocketError error = transport::SocketError::kNone;

 private:
  void Push(transport::TcpSocket s, Nanos now);

  ServiceRig& rig_;
  std::string to_send_;
  bool finish_;
};

// A server on host 0 that answers each connection with its name (once something has come), and then
// what it has received.
class NamedServer : public transport::TcpHandler {
 public:
  NamedServer(ServiceRig& rig, const tables::ServiceAddress& at, std::string name);
  ~NamedServer() override { Stop(); }

  void OnAcceptable(transport::TcpListenerId id, Nanos now) override;
  void OnReadable(transport::TcpSocket s, Nanos now) override;
  void OnError(transport::TcpSocket s, transport::SocketError e, Nanos now) override;

  transport::TcpListenerId listener() const { return listener_; }
  void Stop();      // no longer listens
  void AbortAll();  // resets what there is

  std::string received;  // of all connections
  uint32_t accepted = 0;
  uint32_t errors = 0;
  std::vector<transport::TcpSocket> open;

 private:
  ServiceRig& rig_;
  const std::string name_;
  transport::TcpListenerId listener_;
  std::vector<transport::TcpSocket> named_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_SERVICE_RIG_H_
