#include "services/http_request.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace sluice::services {
namespace {

using Outcome = HttpRequestReader::Outcome;

// What is read of a stream that comes in pieces of `step` bytes: "GET /path keep" for each request, and
// an error's status.
std::vector<std::string> Read(const std::string& stream, size_t step) {
  HttpRequestReader reader;
  std::vector<std::string> out;
  for (size_t at = 0; at < stream.size();) {
    const std::string piece = stream.substr(at, step);
    const auto result =
        reader.Feed({reinterpret_cast<const uint8_t*>(piece.data()), piece.size()});
    if (result.outcome == Outcome::kBad) {
      out.push_back(std::to_string(reader.error_status()));
      return out;
    }
    if (result.outcome == Outcome::kComplete) {
      out.push_back(std::string(http_method_str(reader.method())) + " " +
                    std::string(reader.path()) + (reader.keep_alive() ? " keep" : " close"));
      at += result.taken;
    } else {
      EXPECT_EQ(result.taken, piece.size());
      at += piece.size();
    }
  }
  if (reader.in_request()) out.push_back("more");
  return out;
}

// Where the pieces are cut makes no difference.
std::vector<std::string> Read(const std::string& stream) {
  const auto whole = Read(stream, stream.size());
  for (const size_t step : {1u, 2u, 3u, 7u, 64u}) EXPECT_EQ(Read(stream, step), whole) << step;
  return whole;
}

using Lines = std::vector<std::string>;

TEST(HttpRequestReaderTest, Requests) {
  EXPECT_EQ(Read("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), Lines{"GET /metrics keep"});
  EXPECT_EQ(Read("HEAD /healthz?x=1 HTTP/1.1\r\nhOSt:\r\nConnection: close\r\n\r\n"),
            Lines{"HEAD /healthz close"});
  EXPECT_EQ(Read("GET / HTTP/1.0\r\n\r\n"), Lines{"GET / close"});
  EXPECT_EQ(Read("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), Lines{"GET / keep"});
  // RFC 9112 section 3.2.2: "a server MUST accept the absolute-form in requests".
  EXPECT_EQ(Read("GET http://h:80/metrics HTTP/1.1\r\nHost: h\r\n\r\n"), Lines{"GET /metrics keep"});
  // Section 2.2: "SHOULD ignore at least one empty line (CRLF) received prior to the request-line".
  EXPECT_EQ(Read("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Lines{"GET / keep"});
  EXPECT_EQ(Read("GET / HTT"), Lines{"more"});
}

TEST(HttpRequestReaderTest, OneAfterTheOtherWithBodies) {
  EXPECT_EQ(Read("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345"
                 "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                 "3\r\nabc\r\n0\r\n\r\n"
                 "GET /c HTTP/1.1\r\nHost: a\r\n\r\n"),
            (Lines{"POST /a keep", "POST /b keep", "GET /c keep"}));
}

TEST(HttpRequestReaderTest, UpgradesAreIgnored) {
  EXPECT_EQ(Read("GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                 "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
                 "GET /b HTTP/1.1\r\nHost: a\r\n\r\n"),
            (Lines{"GET /a keep", "GET /b keep"}));
}

// RFC 9112 section 3.2: 400 to "any HTTP/1.1 request message that lacks a Host header field and to any
// request message that contains more than one".
TEST(HttpRequestReaderTest, Host) {
  EXPECT_EQ(Read("GET / HTTP/1.1\r\n\r\n"), Lines{"400"});
  EXPECT_EQ(Read("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), Lines{"400"});
  EXPECT_EQ(Read("GET / HTTP/1.1\r\nHosting: a\r\nX-Host: b\r\n\r\n"), Lines{"400"});
}

TEST(HttpRequestReaderTest, Refused) {
  EXPECT_EQ(Read("\x16\x03\x01\x02"), Lines{"400"});  // TLS
  EXPECT_EQ(Read("SSH-2.0-x\r\n"), Lines{"400"});
  EXPECT_EQ(Read("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), Lines{"505"});
  EXPECT_EQ(Read("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Lines{"400"});
  // Section 6.1: a request with both might be smuggled.
  EXPECT_EQ(Read("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            Lines{"400"});
  EXPECT_EQ(Read("GET / HTTP/1.1\r\nHost : a\r\n\r\n"), Lines{"400"});
}

TEST(HttpRequestReaderTest, Limits) {
  const auto get = [](size_t target) {
    return "GET /" + std::string(target - 1, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n";
  };
  EXPECT_EQ(Read(get(HttpRequestReader::kMaxTarget)).at(0).substr(0, 5), "GET /");
  EXPECT_EQ(Read(get(HttpRequestReader::kMaxTarget + 1)), Lines{"414"});
  std::string many = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 100; ++i) many += "X-Header: " + std::string(100, 'y') + "\r\n";
  EXPECT_EQ(Read(many + "\r\n"), Lines{"431"});
  const auto post = [](size_t length) {
    return "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(length) + "\r\n\r\n" +
           std::string(length, 'z');
  };
  EXPECT_EQ(Read(post(HttpRequestReader::kMaxBody)), Lines{"POST / keep"});
  EXPECT_EQ(Read(post(HttpRequestReader::kMaxBody + 1)), Lines{"413"});
}

TEST(HttpRequestReaderTest, ResetForgetsEverything) {
  HttpRequestReader reader;
  const std::string bad = "x", good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  EXPECT_EQ(reader.Feed({reinterpret_cast<const uint8_t*>(bad.data()), 1}).outcome, Outcome::kBad);
  reader.Reset();
  EXPECT_EQ(reader.Feed({reinterpret_cast<const uint8_t*>(good.data()), good.size()}).outcome,
            Outcome::kComplete);
  EXPECT_EQ(reader.error_status(), 0);
}

}  // namespace
}  // namespace sluice::services
