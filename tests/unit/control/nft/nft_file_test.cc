#include "control/nft/nft_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "control/nft/ruleset_reader.h"
#include "support/network_namespace.h"

namespace sluice::control::nft {
namespace {

using sluice::test::NetworkNamespace;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

class NftFileTest : public testing::Test {
 protected:
  NftFileTest() { EXPECT_NE(mkdtemp(directory_.data()), nullptr); }
  ~NftFileTest() override {
    for (const std::string& file : files_) unlink(file.c_str());
    rmdir(directory_.c_str());
  }
  std::string Write(const std::string& name, const std::string& text) {
    files_.push_back(directory_ + "/" + name);
    std::ofstream(files_.back()) << text;
    return files_.back();
  }
  std::vector<Table> Tables() {
    auto reader = RulesetReader::Open();
    EXPECT_TRUE(reader.ok());
    return reader->Read(Seconds(1))->tables;
  }

  NetworkNamespace namespace_;
  std::string directory_ = testing::TempDir() + "sluice-nft-XXXXXX";
  std::vector<std::string> files_;
};

TEST_F(NftFileTest, LoadsAsOneTransaction) {
  Write("more.nft", "table ip6 b { }\n");
  const std::string file =
      Write("rules.nft",
            "flush ruleset\ninclude \"more.nft\"\ntable inet a { \n chain c { accept; }\n}\n");
  NetworkNamespace::Nft("table ip old { }\n");
  const absl::Status checked = CheckNftFile(file);
  EXPECT_TRUE(checked.ok()) << checked;
  ASSERT_THAT(Tables(), SizeIs(1));  // a check changes nothing
  EXPECT_EQ(Tables()[0].name, "old");
  const absl::Status loaded = LoadNftFile(file);
  EXPECT_TRUE(loaded.ok()) << loaded;
  ASSERT_THAT(Tables(), SizeIs(2));
  EXPECT_EQ(Tables()[1].name, "a");
}

TEST_F(NftFileTest, AnErrorIsOneLineWithItsPlace) {
  const std::string bad_syntax = Write("syntax.nft", "table inet a {\n  chain c { jumpp x; }\n}\n");
  // The kernel finds this one: a base chain cannot be jumped to.
  const std::string refused =
      Write("refused.nft",
            "table ip a { }\ntable inet b {\n  chain f { type filter hook forward priority 0; }\n"
            "  chain c { jump f; }\n}\n");
  for (const std::string& file : {bad_syntax, refused}) {
    for (const absl::Status& status : {CheckNftFile(file), LoadNftFile(file)}) {
      ASSERT_FALSE(status.ok()) << file;
      EXPECT_THAT(std::string(status.message()),
                  AllOf(HasSubstr(file + ":"), Not(HasSubstr("\n"))));
    }
    EXPECT_THAT(Tables(), SizeIs(0)) << "a part of " << file << " was loaded";
  }
  EXPECT_THAT(std::string(CheckNftFile(bad_syntax).message()), HasSubstr(bad_syntax + ":2:"));
}

TEST_F(NftFileTest, AFileThatIsNotThere) {
  for (const std::string& path : {directory_ + "/none.nft", directory_}) {
    for (const absl::Status& status :
         {CheckNftFileReadable(path), CheckNftFile(path), LoadNftFile(path)}) {
      ASSERT_FALSE(status.ok());
      EXPECT_THAT(std::string(status.message()),
                  AllOf(HasSubstr("cannot read " + path), Not(HasSubstr("\n"))));
    }
  }
}

}  // namespace
}  // namespace sluice::control::nft
