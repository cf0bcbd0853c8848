"""What the tests of composefs storage need: repositories, random trees and directories, other implementations."""
