#include "services/context.h"

namespace sluice::services {

Context::Context(transport::Transport& t, const ServiceLimits& l, PageSource& p,
                 const Randomness& random, Nanos now)
    : transport(t),
      limits(l),
      pages(p),
      rng(random.seed),
      timers({kServiceTimers, l.relays, l.http_connections, l.endpoint_connections,
              tables::ServiceSlots::kBackends},
             now),
      item_of_tcp(t.tcp().config().limits.connections),
      item_of_udp(t.udp().config().sockets, transport::kNoIndex),
      sessions(l.udp_sessions),
      session_table(l.udp_sessions, random.key),
      relays(l.relays),
      probes(tables::ServiceSlots::kBackends),
      http(l.http_connections),
      endpoints(l.endpoint_connections),
      scratch(65'536) {}

}  // namespace sluice::services
