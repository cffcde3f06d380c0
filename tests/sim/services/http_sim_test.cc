// /metrics and /healthz over simulated links.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "support/service_rig.h"

namespace sluice::test {
namespace {

using services::ServiceFailure;
using tables::ServiceConfig;
using transport::SocketError;

ServiceConfig Http() {
  ServiceConfig c;
  c.name = "status";
  c.kind = tables::ServiceKind::kHttp;
  c.listen = {ServiceRig::Proxy(80)};
  c.idle_timeout = Seconds(60);
  return c;
}

std::string Get(const std::string& path, const std::string& more = "") {
  return "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + more + "\r\n";
}
std::string Response(const std::string& status, const std::string& body,
                     const std::string& more = "",
                     const std::string& type = "text/plain; charset=utf-8") {
  return "HTTP/1.1 " + status + "\r\nContent-Type: " + type +
         "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + more + "\r\n" + body;
}
const std::string kOk = Response("200 OK", "ok\n");
const char kPageType[] = "text/plain; version=0.0.4; charset=utf-8";

class HttpSim : public testing::Test {
 protected:
  HttpSim() { rig_.Apply({Http()}); }
  // All that is answered; the connection must be closed by the service if `closed`.
  std::string Ask(const std::string& request, bool closed) {
    TextClient client(rig_, ServiceRig::Proxy(80), request);
    rig_.Run(Seconds(1));
    EXPECT_EQ(client.ended, closed) << request;
    EXPECT_EQ(client.error, SocketError::kNone);
    client.Close();
    rig_.Run(Seconds(1));
    EXPECT_EQ(client.error, SocketError::kNone);
    return client.got;
  }
  ServiceRig rig_;
};

TEST_F(HttpSim, Healthz) {
  EXPECT_EQ(Ask(Get("/healthz"), false), kOk);
  EXPECT_EQ(Ask(Get("/healthz?verbose"), false), kOk);
  EXPECT_EQ(Ask(Get("/healthz", "Connection: close\r\n"), true),
            Response("200 OK", "ok\n", "Connection: close\r\n"));
  EXPECT_EQ(Ask("GET /healthz HTTP/1.0\r\n\r\n", true),
            Response("200 OK", "ok\n", "Connection: close\r\n"));
  const std::string head = Ask("HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n", false);
  EXPECT_EQ(head + "ok\n", kOk);
  EXPECT_EQ(rig_.stats("status").messages_in.Read(), 5u);
  EXPECT_EQ(rig_.stats("status").messages_out.Read(), 5u);
  EXPECT_EQ(rig_.Leftovers(), "");
}

TEST_F(HttpSim, OtherRequests) {
  EXPECT_EQ(Ask(Get("/"), false).substr(0, 22), "HTTP/1.1 404 Not Found");
  const std::string post =
      Ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + Get("/healthz"),
          false);
  EXPECT_EQ(post.substr(0, 31), "HTTP/1.1 405 Method Not Allowed");
  EXPECT_NE(post.find("\r\nAllow: GET, HEAD\r\n"), std::string::npos);
  EXPECT_EQ(post.substr(post.size() - kOk.size()), kOk);  // the connection goes on
  EXPECT_EQ(Ask("CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", true).substr(0, 12), "HTTP/1.1 405");
}

// The answer must arrive although more has been sent than was read: no reset.
TEST_F(HttpSim, BadRequestsAreToldSoAndTheConnectionEnds) {
  EXPECT_EQ(Ask("\x16\x03\x01 no HTTP at all" + std::string(5000, 'x'), true),
            Response("400 Bad Request", "bad request\n", "Connection: close\r\n"));
  EXPECT_EQ(Ask("GET / HTTP/1.1\r\n\r\n", true).substr(0, 12), "HTTP/1.1 400");
  EXPECT_EQ(Ask(Get("/" + std::string(1000, 'x')), true).substr(0, 12), "HTTP/1.1 414");
  EXPECT_EQ(Ask(Get("/", "X: " + std::string(20'000, 'y') + "\r\n"), true).substr(0, 12),
            "HTTP/1.1 431");
  EXPECT_EQ(rig_.failed("status", ServiceFailure::kBadRequest), 4u);
  EXPECT_EQ(rig_.Leftovers(), "");
}

TEST_F(HttpSim, MetricsPageComesLater) {
  TextClient client(rig_, ServiceRig::Proxy(80), Get("/metrics"));
  rig_.Run(Seconds(1));
  ASSERT_EQ(rig_.tokens.size(), 1u);
  EXPECT_EQ(client.got, "");
  auto page = std::make_shared<const std::string>("sluice_up 1\n");
  rig_.set().OnPage(rig_.tokens[0], page, rig_.now());
  rig_.set().OnPage(rig_.tokens[0], page, rig_.now());  // too late
  rig_.Run(Seconds(1));
  EXPECT_EQ(client.got, Response("200 OK", "sluice_up 1\n", "", kPageType));
  EXPECT_EQ(page.use_count(), 1);
  // There is none; nobody can be asked; nobody answers.
  client.got.clear();
  client.Say(Get("/metrics"));
  rig_.Run(Seconds(1));
  rig_.set().OnPage(rig_.tokens.at(1), nullptr, rig_.now());
  rig_.pages_answer = false;
  client.Say(Get("/metrics"));
  rig_.Run(Seconds(1));
  rig_.pages_answer = true;
  client.Say(Get("/metrics"));
  rig_.Run(Seconds(12));
  const std::string none =
      Response("503 Service Unavailable", "the page is not available\n");
  EXPECT_EQ(client.got, none + none + none);
  rig_.set().OnPage(rig_.tokens.at(2), page, rig_.now());
  rig_.set().OnPage(0xffff'ffff'ffff'ffff, page, rig_.now());
  rig_.Run(Seconds(1));
  EXPECT_EQ(client.got, none + none + none);
  client.Close();
  EXPECT_EQ(rig_.Leftovers(), "");
}

TEST_F(HttpSim, PageForAConnectionThatIsGone) {
  {
    TextClient client(rig_, ServiceRig::Proxy(80), Get("/metrics"));
    rig_.Run(Seconds(1));
  }
  rig_.Run(Seconds(1));
  EXPECT_EQ(rig_.set().usage().http_connections, 0u);
  // Another has its place.
  TextClient other(rig_, ServiceRig::Proxy(80), Get("/metrics"));
  rig_.Run(Seconds(1));
  rig_.set().OnPage(rig_.tokens.at(0), std::make_shared<const std::string>("old"), rig_.now());
  rig_.Run(Seconds(1));
  EXPECT_EQ(other.got, "");
}

TEST_F(HttpSim, PipelinedAndCutAnywhere) {
  std::string requests, wanted;
  for (int i = 0; i < 20; ++i) {
    requests += Get("/healthz");
    wanted += kOk;
  }
  EXPECT_EQ(Ask(requests, false), wanted);
  TextClient client(rig_, ServiceRig::Proxy(80), "");
  for (const char c : Get("/healthz")) {
    client.Say(std::string(1, c));
    rig_.Run(Millis(50));
  }
  rig_.Run(Seconds(1));
  EXPECT_EQ(client.got, kOk);
}

// A large page to a client that reads slowly: nothing more is read of it meanwhile.
TEST_F(HttpSim, LargePageAndSlowClient) {
  std::string text;
  while (text.size() < 3'000'000) text += "sluice_metric " + std::to_string(text.size()) + "\n";
  auto page = std::make_shared<const std::string>(text);
  TextClient client(rig_, ServiceRig::Proxy(80), Get("/metrics") + Get("/healthz"), false,
                    {.receive_buffer_max = 32 * 1024});
  rig_.Run(Seconds(1));
  client.reading = false;
  rig_.set().OnPage(rig_.tokens.at(0), page, rig_.now());
  rig_.Run(Seconds(5));
  EXPECT_EQ(page.use_count(), 2);
  EXPECT_LT(rig_.link().host(1).tcp().usage().send_frames, 200u);
  client.reading = true;
  client.OnReadable(client.socket, rig_.now());
  const std::string wanted = Response("200 OK", text, "", kPageType) + kOk;
  EXPECT_TRUE(rig_.RunUntil([&] { return client.got.size() >= wanted.size(); }, Seconds(100)));
  EXPECT_TRUE(client.got == wanted);
  EXPECT_EQ(page.use_count(), 1);
  client.Close();
  EXPECT_EQ(rig_.Leftovers(), "");
}

// A client that reads a little now and then: the answer has its time, and no more.
TEST_F(HttpSim, AnswersAreNotTakenForEver) {
  auto page = std::make_shared<const std::string>(4'000'000, 'x');
  TextClient client(rig_, ServiceRig::Proxy(80), Get("/metrics"), false,
                    {.receive_buffer_max = 16 * 1024});
  rig_.Run(Seconds(1));
  client.reading = false;
  rig_.set().OnPage(rig_.tokens.at(0), page, rig_.now());
  for (int i = 0; i < 12 && !client.closed; ++i) {
    rig_.Run(Seconds(10));
    client.reading = true;
    client.OnReadable(client.socket, rig_.now());
    client.reading = false;
  }
  rig_.Run(Seconds(1));
  EXPECT_EQ(rig_.failed("status", ServiceFailure::kIdleTimeout), 1u);
  EXPECT_EQ(rig_.set().usage().http_connections, 0u);
  EXPECT_EQ(page.use_count(), 1);
}

// Connections without a request make room for one that may have one: the idlest first.
TEST_F(HttpSim, IdleConnectionsMakeRoom) {
  const uint32_t places = services::ServiceLimits{}.http_connections;
  for (const bool by_configuration : {false, true}) {
    ServiceConfig config = Http();
    if (by_configuration) config.max_connections = 16;
    rig_.Apply({config});
    const size_t limit = by_configuration ? 16 : places;
    const uint64_t before = rig_.failed("status", ServiceFailure::kEvicted);
    std::vector<std::unique_ptr<TextClient>> idle;
    TextClient busy(rig_, ServiceRig::Proxy(80), Get("/metrics"));
    TextClient slow(rig_, ServiceRig::Proxy(80), "GET /healthz HTTP/1.1\r\n");
    rig_.Run(Millis(100));
    while (idle.size() < limit - 2) {
      idle.push_back(std::make_unique<TextClient>(rig_, ServiceRig::Proxy(80), ""));
      rig_.Run(Millis(10));
    }
    rig_.Run(Seconds(1));
    idle[0]->Say(Get("/healthz"));  // no longer the idlest
    rig_.Run(Seconds(1));
    for (int i = 0; i < 3; ++i) EXPECT_EQ(Ask(Get("/healthz"), false), kOk);
    TextClient probe(rig_, ServiceRig::Proxy(80), Get("/healthz"));
    TextClient other(rig_, ServiceRig::Proxy(80), Get("/healthz"));
    rig_.Run(Seconds(1));
    EXPECT_EQ(probe.got + other.got, kOk + kOk);
    EXPECT_EQ(rig_.failed("status", ServiceFailure::kEvicted) - before, 2u);
    EXPECT_EQ(rig_.failed("status", ServiceFailure::kLimit), 0u);
    EXPECT_FALSE(idle[0]->ended);
    EXPECT_TRUE(idle[1]->ended && idle[2]->ended);
    EXPECT_FALSE(idle[3]->ended || busy.ended || slow.ended);
    for (auto& c : idle) c->Close();
    for (TextClient* c : {&busy, &slow, &probe, &other}) c->Abort();
    rig_.Run(Seconds(5));
    EXPECT_EQ(rig_.set().usage().http_connections, 0u);
  }
}

// ... as do those that have begun a request, or do not take their answer, for seconds: the slowest first.
TEST_F(HttpSim, SlowConnectionsMakeRoom) {
  ServiceConfig config = Http();
  config.max_connections = 16;
  rig_.Apply({config});
  const auto page = std::make_shared<const std::string>(8'000'000, 'x');
  for (const bool begun : {false, true}) {
    const uint64_t evicted = rig_.failed("status", ServiceFailure::kEvicted);
    const uint64_t refused = rig_.failed("status", ServiceFailure::kLimit);
    std::vector<std::unique_ptr<TextClient>> slow;
    while (slow.size() < 16) {
      slow.push_back(std::make_unique<TextClient>(rig_, ServiceRig::Proxy(80),
                                                  begun ? "G" : Get("/metrics")));
      slow.back()->reading = begun;
      rig_.Run(Millis(10));
    }
    for (const uint64_t token : rig_.tokens) rig_.set().OnPage(token, page, rig_.now());
    rig_.tokens.clear();
    rig_.Run(Seconds(1));
    TextClient early(rig_, ServiceRig::Proxy(80), Get("/healthz"));
    rig_.Run(Seconds(1));
    EXPECT_EQ(early.got, "");  // they have had a second
    EXPECT_EQ(rig_.failed("status", ServiceFailure::kLimit), refused + 1);
    rig_.Run(Seconds(5));
    TextClient probe(rig_, ServiceRig::Proxy(80), Get("/healthz"));
    rig_.Run(Seconds(1));
    EXPECT_EQ(probe.got, kOk) << begun;
    EXPECT_EQ(Ask(Get("/healthz"), false), kOk);  // instead of `probe`, which is idle
    EXPECT_EQ(rig_.failed("status", ServiceFailure::kEvicted), evicted + 2);
    EXPECT_EQ(rig_.failed("status", ServiceFailure::kLimit), refused + 1);
    EXPECT_EQ(rig_.set().usage().http_connections, 15u);
    EXPECT_TRUE(slow[0]->closed || slow[0]->ended);
    EXPECT_FALSE(slow[1]->closed || slow[1]->ended);
    for (auto& c : slow) c->Abort();
    for (TextClient* c : {&early, &probe}) c->Abort();
    rig_.Run(Seconds(5));
    EXPECT_EQ(rig_.set().usage().http_connections, 0u);
  }
  EXPECT_EQ(page.use_count(), 1);
  EXPECT_EQ(rig_.Leftovers(), "");
}

// While memory for sending runs short, answers use little of it each: others need it too.
TEST(HttpMemory, AnswersLeaveSome) {
  ServiceRig::Options options;
  options.link.hosts[1].config.tcp.limits.send_frames = 400;
  ServiceRig rig(options);
  rig.Apply({Http()});
  auto page = std::make_shared<const std::string>(1'000'000, 'x');
  std::vector<std::unique_ptr<TextClient>> clients;
  for (int i = 0; i < 60; ++i) {
    clients.push_back(std::make_unique<TextClient>(
        rig, ServiceRig::Proxy(80), Get("/metrics"), false,
        transport::TcpSocketOptions{.receive_buffer_max = 16 * 1024}));
    clients.back()->reading = false;
  }
  rig.Run(Seconds(1));
  ASSERT_EQ(rig.tokens.size(), clients.size());
  for (const uint64_t token : rig.tokens) rig.set().OnPage(token, page, rig.now());
  rig.Run(Seconds(5));
  EXPECT_GE(rig.link().host(1).tcp().SendMemory(), 50u);
  // ... and each of them is finished when its client reads.
  const std::string wanted = Response("200 OK", *page, "", kPageType);
  for (auto& c : clients) {
    c->reading = true;
    c->OnReadable(c->socket, rig.now());
  }
  EXPECT_TRUE(rig.RunUntil(
      [&] {
        return std::all_of(clients.begin(), clients.end(),
                           [&](const auto& c) { return c->got.size() == wanted.size(); });
      },
      Seconds(50)));
  clients.clear();
  EXPECT_EQ(rig.Leftovers(), "");
}

TEST_F(HttpSim, Timeouts) {
  TextClient idle(rig_, ServiceRig::Proxy(80), "");
  TextClient slow(rig_, ServiceRig::Proxy(80), "GET /healthz HTTP/1.1\r\n");
  for (int i = 0; i < 13; ++i) {  // one line every five seconds does not help
    rig_.Run(Seconds(5));
    if (!slow.ended) slow.Say("X: y\r\n");
  }
  EXPECT_TRUE(idle.ended);
  EXPECT_EQ(idle.got, "");
  EXPECT_TRUE(slow.ended);
  EXPECT_EQ(slow.got.substr(0, 28), "HTTP/1.1 408 Request Timeout");
  EXPECT_EQ(rig_.failed("status", ServiceFailure::kIdleTimeout), 1u);
  idle.Close();
  slow.Close();
  EXPECT_EQ(rig_.Leftovers(), "");
}

// A service that is taken away ends idle connections, and the others after their answer.
TEST_F(HttpSim, Drains) {
  TextClient idle(rig_, ServiceRig::Proxy(80), Get("/healthz"));
  TextClient waits(rig_, ServiceRig::Proxy(80), Get("/metrics"));
  rig_.Run(Seconds(1));
  rig_.Apply({});
  EXPECT_FALSE(rig_.set().Drained());
  rig_.Run(Seconds(1));
  EXPECT_TRUE(idle.ended);
  EXPECT_EQ(idle.got, kOk);
  EXPECT_FALSE(waits.ended);
  rig_.set().OnPage(rig_.tokens.at(0), std::make_shared<const std::string>("p\n"), rig_.now());
  rig_.Run(Seconds(1));
  EXPECT_EQ(waits.got.substr(0, 15), "HTTP/1.1 200 OK");
  idle.Close();
  waits.Close();
  rig_.Run(Seconds(3));
  EXPECT_TRUE(rig_.set().Drained());
  EXPECT_EQ(rig_.Leftovers(), "");
  EXPECT_EQ(rig_.set().usage().timers, 0u);
}

}  // namespace
}  // namespace sluice::test
