# frozen_string_literal: true

# Has each host's own conductor bring a service to a revision, a few hosts after
# the other. README.md says how it is used.

require "shellwords"

# What is asked of conductor on the hosts.
module Conductor
  extend Capistrano::DSL

  ID = /\A(?=.{1,63}\z)[a-z0-9]+([_-][a-z0-9]+)*\z/
  REVISION = /\A(\w[\w.-]{0,127}|sha256:\h{64})\z/
  Stopped = Class.new(StandardError)

  module_function

  def change(verb)
    service verb, revision: checked(:conductor_revision, REVISION, "REVISION=v2"), reason: fetch(:conductor_reason)
  end

  # Runs `conductor service VERB` on the hosts. Those after one that fails are not
  # touched, and those beside it come to their end.
  def service(verb, **flags)
    flags = { id: checked(:conductor_service, ID, "set :conductor_service, \"shop\""), **flags }
    words = flags.flat_map { |name, value| ["--#{name}", value.shellescape] }
    roles(fetch(:conductor_roles)).each_slice(fetch(:conductor_at_once)) do |hosts|
      failed = {}
      on hosts do |host|
        ended = execute :conductor, "--output", "plain", "service", verb, *words
        # Without an exit code, which is no error for SSHKit.
        failed[host] = "conductor was killed" unless ended || Conductor.dry_run?
      rescue SSHKit::Command::Failed => e
        failed[host] = e.message
      end
      stop(verb, failed) if failed.any?
    end
  end

  def checked(setting, form, example)
    value = fetch(setting).to_s
    value.match?(form) ? value : fail_with(2, "#{setting} cannot be #{value.inspect}; for example: #{example}")
  end

  def stop(verb, failed)
    said = failed.map { |host, text| "#{host}: #{text[/ stderr: (.*)\z/m, 1] || text}" }
    fail_with failed.values.first[/ exit status: (\d+)/, 1].to_i, "service #{verb} stops here. #{said.join("\n").strip}"
  end

  # cap ends with conductor's exit code, and deploy:failed is run where it is there.
  def fail_with(code, text)
    at_exit { exit code.zero? ? 1 : code }
    raise Stopped, text, []
  end
end

namespace :load do
  task :defaults do
    SSHKit.config.command_map[:conductor] = "sudo -n conductor"
    set :conductor_service, -> { fetch(:application) }
    set :conductor_roles, :all
    set :conductor_at_once, 1
    set :conductor_reason, -> { ["cap", fetch(:stage), *("by #{fetch(:local_user)}" if fetch(:local_user))].join(" ") }
    ENV["REVISION"] ? set(:conductor_revision, ENV["REVISION"]) : ask(:conductor_revision, nil, prompt: "Revision")
  end
end

namespace :conductor do
  desc "Bring the service to REVISION on all hosts"
  task(:upgrade) { Conductor.change :upgrade }

  desc "Take the service back to REVISION, which the hosts have kept"
  task(:rollback) { Conductor.change :rollback }

  desc "Show what the hosts run, and which revisions they have kept"
  task(:status) { Conductor.service :status }
end
