// What the services of one worker share: the transport stack, memory for connections, timers, and
// counters. Everything is allocated at construction, by ServiceLimits. Thread: the worker's.
#ifndef SLUICE_SERVICES_CONTEXT_H_
#define SLUICE_SERVICES_CONTEXT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/rng.h"
#include "base/time.h"
#include "services/backend_pool.h"
#include "services/health_checker.h"
#include "services/http_request.h"
#include "services/service_counters.h"
#include "services/timers.h"
#include "tables/service_config.h"
#include "transport/common/slab.h"
#include "transport/common/tuple_table.h"
#include "transport/transport.h"

namespace sluice::services {

// Per worker. What happens at each limit stands behind it, and is counted as kLimit where it is not
// said otherwise. The transport stack's own limits come on top: a relay has two TCP connections, a
// UDP session one socket.
struct ServiceLimits {
  uint32_t workers = 1;                  // among which max_connections is divided
  uint32_t relays = 2048;                // tcp_proxy: a client of one more is reset
  uint32_t udp_sessions = 8192;          // udp_proxy: the idlest of the service with most makes room
  uint32_t http_connections = 256;       // the idlest makes room; without one a client is reset
  uint32_t endpoint_connections = 1024;  // echo, discard, chargen: likewise
};
// `seed`: what only has to be even (turns, jitter); the same one gives the same run. `key`: of tables
// that strangers fill; secret, and of each worker its own.
struct Randomness {
  uint64_t seed = 1;
  transport::HashKey key;
};
// Services that there can be at a time, with those that drain; of one more, the oldest that drains is
// ended at once.
inline constexpr uint32_t kServiceTimers = 4 * tables::kMaxServices;

// The control thread, which has the page that /metrics shows.
class PageSource {
 public:
  virtual ~PageSource() = default;
  // Asks for it. The answer is ServiceSet::OnPage with the same token, later, on the worker's thread
  // (not from within this call). False: it cannot be asked now.
  virtual bool Request(uint64_t token) = 0;
};

struct BackendView {
  tables::ServiceAddress address;
  uint32_t weight = 1;
  bool checked = false;   // has health checks
  bool up = true;
  bool removed = false;   // by a reload; the rest of its connections lives on
  uint32_t connections = 0;
  Nanos since;            // when it last went up or down
  const BackendStats* stats = nullptr;  // null: not counted
};
using BackendVisitor = std::function<void(const BackendView&)>;

class Service;
class HttpService;
class TcpProxy;
class UdpProxy;
struct Backend;

// A connection of echo, discard or chargen.
struct EndpointConnection {
  Service* owner = nullptr;  // null: not in use
  transport::TcpSocket socket;
  Nanos last_activity;
};

// A client's connection and the one to a backend.
struct Relay {
  TcpProxy* owner = nullptr;  // null: not in use
  transport::TcpSocket client;
  transport::TcpSocket server;  // not valid while no backend is being tried
  Backend* backend = nullptr;
  BackendMask tried = 0;
  Nanos last_activity;          // while connecting: when the attempt began
  uint32_t undelivered = 0;     // bytes, when the idle timer last looked
  uint8_t attempts_left = 0;
  bool connected = false;       // to the backend
  bool client_ended = false;    // has finished sending, and the backend was told
  bool server_ended = false;
};

// What a client and a backend say to each other by UDP.
struct UdpSession {
  UdpProxy* owner = nullptr;  // null: not in use
  transport::Tuple tuple;     // local: what the service listens on; remote: the client
  transport::UdpSocket client;  // the listener's
  transport::UdpSocket server;
  Backend* backend = nullptr;
  Nanos last_activity;
  uint32_t next = transport::kNoIndex;
  uint32_t previous = transport::kNoIndex;
  uint32_t replies_due = 0;  // to all that the client has said, where they are counted
  bool own_client_socket = false;  // `client` is this session's alone
  transport::RelayHandle to_backend;  // of what XDP carries
  transport::RelayHandle to_client;
};

struct HttpConnection {
  enum class State : uint8_t {
    kReading,
    kWaiting,  // for the page
    kSending,
    kGoodbye,  // has sent its last answer; the client's FIN is awaited
  };

  HttpService* owner = nullptr;  // null: not in use
  transport::TcpSocket socket;
  State state = State::kReading;
  bool keep_alive = true;
  bool head_only = false;
  uint16_t input_begin = 0;  // what of `input` has not been parsed
  uint16_t input_end = 0;
  uint16_t head_size = 0;
  uint32_t generation = 0;   // of answers: survives the connection
  Nanos since;               // when the last answer had been sent; while one is sent, when it began
  size_t sent = 0;           // of head and body
  std::string_view body;     // `page`'s
  std::shared_ptr<const std::string> page;
  HttpRequestReader reader;
  std::array<char, 320> head;  // and a short body
  std::array<uint8_t, 1024> input;

  void Start(HttpService* service, transport::TcpSocket s, Nanos now) {
    owner = service;
    socket = s;
    since = now;
    state = State::kReading;
    keep_alive = true;
    head_only = false;
    input_begin = input_end = 0;
    reader.Reset();
  }
  // What PageSource is asked with, of the connection at this place.
  uint64_t TokenAt(uint32_t index) const { return uint64_t{generation} << 32 | index; }
};

struct Context {
  Context(transport::Transport& t, const ServiceLimits& l, PageSource& p, const Randomness& random,
          Nanos now);

  transport::Transport& transport;
  const ServiceLimits limits;
  PageSource& pages;
  Rng rng;
  ServiceCounters counters;
  Timers timers;
  // By TcpSocket::index: which item of the service's a connection belongs to.
  std::vector<uint32_t> item_of_tcp;
  // By UdpSocket::index: likewise; kNoIndex: it is what a service listens on.
  std::vector<uint32_t> item_of_udp;
  transport::Slab<UdpSession> sessions;
  transport::TupleTable session_table;
  std::vector<UdpProxy*> udp_proxies;  // all of them: who has most sessions makes room
  transport::Slab<Relay> relays;
  transport::Slab<Probe> probes;
  transport::Slab<HttpConnection> http;
  transport::Slab<EndpointConnection> endpoints;
  std::vector<uint8_t> scratch;  // the largest datagram

  uint32_t FindSession(const transport::Tuple& t) const {
    return session_table.Find(
        t, [this](uint32_t i) -> const transport::Tuple& { return sessions[i].tuple; });
  }
};

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_CONTEXT_H_
