# Action Cable of Rails without the rest of Rails: `puma -b tcp://127.0.0.1:0 cable.ru`. It pings much more often than by
# default.

require 'logger'
require 'action_cable'

ActionCable::Server::Connections.send(:remove_const, :BEAT_INTERVAL)
ActionCable::Server::Connections.const_set(:BEAT_INTERVAL, 0.3)

class Connection < ActionCable::Connection::Base
  identified_by :token

  # A token is asked for, as applications do.
  def connect
    self.token = request.params[:token]
    reject_unauthorized_connection unless token == 'sesame'
  end
end

class LoadChannel < ActionCable::Channel::Base
  def subscribed
    stream_from params[:topic]
  end

  def say(data)
    ActionCable.server.broadcast(params[:topic], { text: data['text'] })
  end
end

ActionCable.server.config.tap do |config|
  # With 'async', broadcasts are handed to ten threads, and overtake each other.
  config.cable = { 'adapter' => 'inline' }
  config.connection_class = -> { Connection }
  config.disable_request_forgery_protection = true
  config.logger = Logger.new(nil)
  # With more, what one client says may be broadcast in another order.
  config.worker_pool_size = 1
end

map('/restart') do
  run(lambda { |_|
    ActionCable.server.restart
    [200, {}, ['']]
  })
end
map('/') { run ActionCable.server }
