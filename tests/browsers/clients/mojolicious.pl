# A conversation with a running server, by Mojolicious. `matrix.py` runs it; python.py says how.
use strict;
use warnings;
use utf8;
use Digest::SHA qw(sha1_hex);
use Encode qw(encode);
use Mojo::IOLoop;
use Mojo::UserAgent;

my (undef, $url) = @ARGV;
$| = 1;
my $rows = join ',', map { qq({"id":$_,"name":"row $_"}) } 0 .. 60;
my @echoes = ('', 'hello, 世界', (map {"$_ $rows"} 0 .. 4), 'x' x 65_000, $rows x 110);
my $agent = Mojo::UserAgent->new(max_redirects => 0, inactivity_timeout => 30);
# It offers compression by itself.
my $headers = {'Sec-WebSocket-Extensions' => 'permessage-deflate'};

sub open_at {
  my ($path, $cb) = @_;
  $agent->websocket("$url$path" => $headers => sub {
    my (undef, $tx) = @_;
    die "no WebSocket: " . ($tx->res->code // 'no answer') . "\n" unless $tx->is_websocket;
    $tx->max_websocket_size(1 << 24);
    $cb->($tx);
  });
  Mojo::IOLoop->start;
}

open_at('/echo', sub {
  my $tx   = shift;
  my @left = @echoes;
  $tx->on(text => sub {
    my (undef, $bytes) = @_;
    my $sent = shift @left;
    die length($sent) . " came back changed\n" unless $bytes eq encode('UTF-8', $sent);
    @left ? $tx->send($left[0]) : $tx->finish(1000);
  });
  $tx->on(finish => sub { print "echoed $_[1]\n"; Mojo::IOLoop->stop });
  $tx->send($left[0]);
});
open_at('/ws/mojolicious', sub {
  my $tx  = shift;
  my $got = sub { printf "got %d %s\n", length $_[1], sha1_hex($_[1]) };
  $tx->on(text   => $got);
  $tx->on(binary => $got);
  $tx->on(finish => sub { print "closed $_[1]\n"; Mojo::IOLoop->stop });
  print "subscribed\n";
});
